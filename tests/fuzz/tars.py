"""Damage tar files at random and compare their index with ``tarfile``: python tests/fuzz/tars.py --seconds 300.

An undamaged folder of tar files with one layout has the images, labels and bytes that ``tarfile`` reads. Any other is
refused in one line, or its index has the images of ``tarfile``. The script exits with status 1 if a case fails.
"""

from __future__ import annotations

import faulthandler
import io
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from support.fuzzing import fuzz_command  # noqa: E402

from msg_ms import UserError  # noqa: E402
from msg_ms.data import ImageFolder, scan_images  # noqa: E402
from msg_ms.data.images.folder import IMAGE_SUFFIXES  # noqa: E402
from msg_ms.data.images.tar_scan import write_index  # noqa: E402

HANG = 60  # seconds for one case
LONGEST = 3000  # characters of a message
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
WORDS = ("a", "b", "n01440764", "caf\u00e9", "cafe\u0301", "two words", "x" * 40, "UPPER", "train", "0")
ODD = ("", ".", "..", ".hidden", "a\\b", "\u2028", "deep/" * 40, "a//b", "~", "x\n")
SUFFIXES = (".png", ".jpg", ".JPEG", ".webp", ".txt", ".json", ".tar", "", ".cls")
TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, b"Z")

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """Return an entry of a tar file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "a" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    info.size = len(content)
    return info, content


def class_folders(rng: np.random.Generator, number: int) -> Members:
    """Return images in class folders, with names of their own in each tar file."""
    rows = []
    for label in range(int(rng.integers(2, 5))):
        for i in range(int(rng.integers(1, 4))):
            below = ("", "./", "")[rng.integers(3)], ("", "more/", "x" * 90 + "/")[rng.integers(3)]
            suffix = IMAGE_SUFFIXES[rng.integers(len(IMAGE_SUFFIXES))]
            name = f"{below[0]}class {label}/{below[1]}{number}_{i}{suffix}"
            rows.append(member(name, rng.bytes(int(rng.integers(1, 1500)))))
    return [rows[i] for i in rng.permutation(len(rows))]


def labelled(rng: np.random.Generator, number: int) -> Members:
    """Return WebDataset's pairs of images and labels."""
    rows, folder = [], ("", "shard/")[rng.integers(2)]
    for i in range(int(rng.integers(1, 8))):
        text = f"{rng.integers(12)}" + ("", "\n")[rng.integers(2)]
        rows.append(member(f"{folder}{i:04d}.jpg", rng.bytes(int(rng.integers(1, 1500)))))
        rows.append(member(f"{folder}{i:04d}.cls", text.encode()))
    return rows


def odd_members(rng: np.random.Generator) -> Members:
    """Return members of any name and type."""
    rows = []
    for _ in range(int(rng.integers(0, 6))):
        parts = [(WORDS, ODD)[int(rng.random() < 0.2)][rng.integers(10)] for _ in range(int(rng.integers(1, 4)))]
        name = "/".join(parts) + SUFFIXES[rng.integers(len(SUFFIXES))]
        kind = TYPES[rng.integers(len(TYPES))] if rng.random() < 0.15 else tarfile.REGTYPE
        content = rng.bytes(int(rng.integers(0, 700))) if kind in (tarfile.REGTYPE, tarfile.CONTTYPE) else b""
        rows.append(member(name, content, kind))
    return rows


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the bytes of a tar file, often those of a header."""
    at = int(rng.integers(len(data) or 1))
    if rng.random() < 0.5:
        at = at // 512 * 512 + int(rng.choice([0, 100, 124, 136, 148, 156, 257, 345]))
    kind, length = rng.integers(8), int(2 ** rng.uniform(0, 11))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + rng.bytes(length) + data[at + length :]
    if kind == 2:
        return data[:at] + bytes(length) + data[at + length :]
    if kind == 3:
        return data[:at] + data[at + length :]
    if kind == 4:
        return data + data
    if kind == 5:
        return data[:at] + b"\xff" * length + data[at + length :]
    if kind == 6:  # another size with the right checksum
        return resized(data, at // 512 * 512, int(rng.choice([0, 1, 512, 10**6, 2**40])))
    return data[:at] + bytes([rng.integers(256)]) + data[at + 1 :]


def resized(data: bytes, at: int, size: int) -> bytes:
    """Return a tar file whose header at a place has another size and a valid checksum."""
    header = bytearray(data[at : at + 512].ljust(512, b"\0"))
    header[124:136] = b"%011o\0" % min(size, 8**11 - 1)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


def write_case(root: Path, rng: np.random.Generator) -> bool:
    """Write one to three tar files; return whether they are sound and of one layout."""
    sound, layout = True, (class_folders, labelled)[rng.integers(2)]
    for number in range(int(rng.integers(1, 4))):
        rows = layout(rng, number)
        if rng.random() < 0.4:
            rows, sound = rows + odd_members(rng), False
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=FORMATS[rng.integers(3)]) as archive:
            for info, content in rows:
                try:
                    archive.addfile(info, io.BytesIO(content))
                except ValueError:  # a name that is too long for the format
                    sound = False
        data = stream.getvalue()
        if rng.random() < 0.3:
            data, sound = damage(data, rng), False
        (root / f"{number}.tar").write_bytes(data)
    return sound


def by_tarfile(root: Path) -> tuple[Counter, Counter]:
    """Return the images (tar file, path, bytes) that ``tarfile`` reads: those in folders, and those with a label."""
    in_folders, labelled = Counter(), Counter()
    for path in sorted(root.glob("*.tar")):
        labels, found = {}, []
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as archive:
            for info in archive:
                parts = [part for part in info.name.split("/") if part not in ("", ".")]
                if not info.isreg() or not parts or any(part.startswith(".") for part in parts):
                    continue
                name, content = "/".join(parts), archive.extractfile(info).read()
                sample = "/".join([*parts[:-1], parts[-1].partition(".")[0]])
                if name.lower().endswith(".cls"):
                    labels[sample] = content
                elif name.lower().endswith(IMAGE_SUFFIXES):
                    found.append((sample, (path.name, name, content)))
        in_folders += Counter(key for _, key in found if "/" in key[1])
        labelled += Counter((*key, int(labels[sample])) for sample, key in found if sample in labels)
    return in_folders, labelled


def differences(root: Path, folder: ImageFolder) -> str:
    """Return how an index differs from ``tarfile``'s reading; empty if it does not."""
    in_folders, labelled = by_tarfile(root)
    own = []
    for i in range(len(folder)):
        tar, _, name = folder.files.shown(i).removeprefix(f"{root}/").partition(":")
        own.append((tar, name, folder.files.read(i)))
    if not folder.classes:
        rows = Counter((*key, label) for key, label in zip(own, folder.labels, strict=True))
        return "" if rows == labelled else f"other labels: {[row[:2] for row in (rows - labelled) + (labelled - rows)]}"
    if Counter(own) != in_folders:
        both = (Counter(own) - in_folders) + (in_folders - Counter(own))
        return f"other images: {[row[:2] for row in both]}"
    classes = [unicodedata.normalize("NFC", name.partition("/")[0]) for _, name, _ in own]
    return "" if classes == [folder.classes[label] for label in folder.labels] else f"other classes: {classes}"


def try_case(root: Path, sound: bool) -> tuple[str, str]:
    """Return the outcome of a case, and why it is wrong, if it is."""
    try:
        write_index(root)
        folder = scan_images(root)
    except UserError as error:
        text = str(error)
        if sound:
            return "refused", f"sound files are refused: {text}"
        wrong = "the message has several lines" if "\n" in text else "a long message" if len(text) > LONGEST else ""
        return "refused", wrong or ("" if str(root) in text else f"the message names no file: {text}")
    return "accepted", differences(root, folder)


def run(seed: int, seconds: float, cases: int = 0, keep: Path | None = None) -> tuple[Counter, list[str]]:
    """Try ``cases`` cases, or as many as fit in some seconds; return outcomes and a line for each failure."""
    counts, failures, number, end = Counter(), [], 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while number < cases if cases else time.monotonic() < end:
            root, rng = Path(folder) / str(number), np.random.default_rng((seed, number))
            root.mkdir()
            faulthandler.dump_traceback_later(HANG, exit=True)
            sound = write_case(root, rng)
            try:
                outcome, wrong = try_case(root, sound)
            except Exception:
                outcome, wrong = "traceback", traceback.format_exc()
            faulthandler.cancel_dump_traceback_later()
            counts[outcome] += 1
            counts["sound"] += sound
            if wrong:
                failures.append(f"case {number} of seed {seed}: {wrong}")
                if keep is not None:
                    shutil.copytree(root, keep / f"{seed}_{number}")
            shutil.rmtree(root)
            number += 1
    return counts, failures


if __name__ == "__main__":
    sys.exit(fuzz_command("Compare the index of tar files with tarfile.", "tar files", run))
