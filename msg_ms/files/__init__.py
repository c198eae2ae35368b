"""Atomic writes, locks and owners of folders, names of users, standard streams: for every package."""

from .atomic import PARTIAL, atomic_write, new_folder, remove_partial
from .locks import LOCK, lock_folder
from .names import ESCAPE, as_path, readable, user_path
from .owners import folder_written_by_others, make_folder, written_by_others
from .read import head_of_file
from .streams import open_standard_streams

__all__ = [
    "ESCAPE",
    "LOCK",
    "PARTIAL",
    "as_path",
    "atomic_write",
    "folder_written_by_others",
    "head_of_file",
    "lock_folder",
    "make_folder",
    "new_folder",
    "open_standard_streams",
    "readable",
    "remove_partial",
    "user_path",
    "written_by_others",
]
