"""Who can write to a file or folder."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, writable by their owner only, under any umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(0o755, exist_ok=True)


def _is_private_group(status: os.stat_result) -> bool:
    """Return whether the group of a file is its owner's own, as systems with umask 002 create it."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}


def written_by_others(path: Path, mask: int = 0o022) -> str:
    """Return why another user could have written a file, or entries of a folder.

    Args:
        path: An existing file or folder.
        mask: Permission bits that only the owner may have. The owner's private group counts as the owner.

    Returns:
        The reason, empty if only this user and root can write there.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a symbolic link"
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to user {status.st_uid}"
    if _is_private_group(status):
        mask &= ~0o020
    return f"{path} is writable by others" if status.st_mode & mask else ""


def folder_written_by_others(folder: Path) -> str:
    """Return why another user could have written to a folder or replaced it, empty if only this user and root can."""
    for path in (folder, *folder.parents):
        reason = written_by_others(path)
        # In a sticky folder such as /tmp, others can't rename or remove this user's entries.
        if reason and (path == folder or not path.stat().st_mode & stat.S_ISVTX):
            return reason
    return ""
