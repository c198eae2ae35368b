"""Command lines of the installed package; tools/ has a wrapper for most of them."""
