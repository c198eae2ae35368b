"""The image files that annotations belong to: found by the names in an export, and measured."""

from __future__ import annotations

import os
import posixpath
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from ...errors import UserError
from ..images.class_files import composed
from ..images.entries import is_directory
from ..images.folder import IMAGE_SUFFIXES
from ..pixels.image_files import SWAPPED, exif_orientation, failure_reason
from .notes import Notes
from .shapes import LabelledImage

NOT_FOUND = "images that are not found"
TURNED = (
    "images that viewers turn by their EXIF orientation, which training ignores; turn the pixels (Pillow's "
    "ImageOps.exif_transpose) and import again"
)


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder in alphabetical order, without hidden ones; links to folders are followed."""
    seen: set[str] = set()
    for top, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(top)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(top, name)
            for name in sorted(names)
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        )


def plain_path(file: Path) -> Path:
    """Return an absolute path without dots; links stay, unlike in ``Path.resolve``."""
    return Path(os.path.normpath(file.absolute()))


class ImageIndex:
    """The images below a folder.

    Args:
        root: The folder.
        notes: Receives the images that can't be used.

    Raises:
        UserError: It is not a folder, or holds no images.
    """

    def __init__(self, root: Path, notes: Notes):
        if not is_directory(root):
            raise UserError(f"{root} is not a directory; name the folder of the images with --images")
        self.root, self.notes = root, notes
        self.used: set[Path] = set()
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for file in image_files(root):
            self._by_name[composed(file.name)].append(file)
        if not self._by_name:
            raise UserError(f"{root} contains no images ({', '.join(IMAGE_SUFFIXES)}); name their folder with --images")

    def find(self, name: str, place: str, near: Sequence[Path] = ()) -> Path | None:
        """Return the image that an export means by a name or path; note why there is none.

        Args:
            name: A file name, or a path that may be of another machine: its last parts decide.
            place: Where the name is, for messages.
            near: Folders that are tried first.
        """
        base = posixpath.basename(name.replace("\\", "/").rstrip("/"))
        for folder in near:
            if base and (folder / base).is_file():
                return folder / base
        found = self.matching(name)
        if len(found) == 1:
            return found[0]
        if found:
            self.notes.skip("images whose name fits several files", f"{place}: {name}")
        else:
            self.notes.skip(NOT_FOUND, f"{place}: {name or 'no file name'}")
        return None

    def matching(self, name: str) -> list[Path]:
        """Return the images whose last parts agree best with a path; none if not even the file name does."""
        parts = PurePosixPath(composed(name.replace("\\", "/"))).parts
        candidates = self._by_name.get(parts[-1] if parts else "", [])
        shared = [_shared_parts(parts, PurePosixPath(composed(file.as_posix())).parts) for file in candidates]
        best = [file for file, count in zip(candidates, shared, strict=True) if count == max(shared)]
        # An earlier import may have left links to the same files.
        return list({file.resolve(): file for file in reversed(best)}.values())

    def find_stem(self, stem: str, near: Sequence[Path]) -> Path | None:
        """Return the only image in some folders with a name and any suffix; None if there is none or are several."""
        for folder in near:
            files = [folder / f"{stem}{end}" for suffix in IMAGE_SUFFIXES for end in (suffix, suffix.upper())]
            found = [file for file in files if file.is_file()]
            if len(found) == 1:
                return found[0]
        return None

    def measure(
        self, file: Path, recorded: tuple[int, int] | None = None, split: str = "", place: str = ""
    ) -> LabelledImage | None:
        """Return an image without objects, or note why it can't be used and return None.

        Args:
            file: The image.
            recorded: Height and width in the export, None if it has none.
            split: ``train``, ``val``, ``test`` or empty.
            place: Where its annotations are, for messages; by default the file.
        """
        if (key := plain_path(file)) in self.used:
            self.notes.skip("images that are listed twice", place or file)
            return None
        self.used.add(key)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(file) as image:  # reads the header only
                    width, height = image.size
                    orientation = exif_orientation(image)
        except Exception as error:  # damaged files raise errors of many kinds
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else failure_reason(error)
            self.notes.skip("images that can't be read", f"{file} ({reason})")
            return None
        as_stored = recorded == (height, width) and height != width and orientation in SWAPPED
        if orientation > 1 and not as_stored:
            self.notes.skip(TURNED, file)
            return None
        if recorded is not None and recorded != (height, width):
            self.notes.skip(
                "images of another size than in their annotations",
                f"{file} ({width} x {height}, annotated {recorded[1]} x {recorded[0]})",
            )
            return None
        return LabelledImage(file, height, width, split)

    def note_unused(self) -> None:
        """Note the images below the folder that the export does not list."""
        real = {file.resolve() for file in self.used}
        for file in sorted(file for files in self._by_name.values() for file in files):
            if plain_path(file) not in self.used and plain_path(file.resolve()) not in real:
                self.notes.skip("images without annotations", file)


def _shared_parts(wanted: Sequence[str], path: Sequence[str]) -> int:
    """Return how many parts at the end of two paths are equal."""
    count = 0
    for a, b in zip(reversed(wanted), reversed(path), strict=False):
        if a != b:
            break
        count += 1
    return count
