"""Lists of labelled images: class folders, text files and tar files."""
