"""Damage image files at random and compare ``decode`` with Pillow: python tests/fuzz/images.py --seconds 300.

Every case must have Pillow's verdict and Pillow's pixels, or for grey images of more than 8 bits those of the rule in
docs/data.md. The script prints the number of cases and of disagreements. It writes the files that disagree to
``--keep`` and exits with status 1 if there are any.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from msg_ms.data.pixels.decode import decode

HANG = 60  # seconds for one case
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB")
VARIANTS = (
    ("JPEG", {"quality": 90}),
    ("JPEG", {"quality": 40, "progressive": True}),
    ("JPEG", {"quality": 75, "subsampling": 0, "restart_marker_blocks": 3}),
    ("JPEG", {"quality": 75, "optimize": True, "comment": b"a comment"}),
    ("PNG", {}),
    ("PNG", {"compress_level": 0}),
    ("WEBP", {"quality": 70}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}),
    ("BMP", {}),
    ("GIF", {}),
    ("PPM", {}),
)


def image_of(mode: str, rng: np.random.Generator) -> Image.Image:
    """Return a smooth image with some noise."""
    height, width = (int(n) for n in rng.integers(1, rng.choice([20, 90, 90, 400]), 2))
    waves = np.sin(np.arange(height)[:, None, None] / 9 + np.arange(width)[:, None] / 7 + np.arange(3))
    pixels = np.clip(127 + 100 * waves + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    if mode in ("I", "F"):
        values = pixels[..., 0] * rng.choice([1, 1 / 255, 200, -1])
        return Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    if mode == "LAB":
        return Image.frombytes("LAB", (width, height), pixels.tobytes())
    return Image.fromarray(pixels).convert(mode)


def valid_files(rng: np.random.Generator) -> list[bytes]:
    """Return one file for each pair of mode and format that Pillow can write."""
    files = []
    for mode in MODES:
        for kind, options in VARIANTS:
            if options.get("compression") == "jpeg" and mode not in ("RGB", "L"):
                continue  # libtiff corrupts memory while it writes some of the others
            stream = io.BytesIO()
            try:
                image_of(mode, rng).save(stream, kind, **options)
            except (OSError, ValueError, KeyError):
                continue
            files.append(stream.getvalue())
    return files


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a file in one to three places."""
    content = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(content) or 1)), int(2 ** rng.uniform(0, 7))
        kind = rng.integers(9)
        if kind == 0:
            content[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            content[at : at + length] = b"\xff" * length
        elif kind == 2:
            content[at : at + length] = bytes(length)
        elif kind == 3:
            content[at : at + length] = rng.bytes(length)
        elif kind == 4:
            del content[at : at + length]
        elif kind == 5:
            del content[at:]
        elif kind == 6:
            content[at:at] = content[at : at + length]
        elif kind == 7:
            content[at : at + 2] = bytes([0xFF, int(rng.choice([0xC0, 0xC2, 0xC4, 0xD0, 0xD9, 0xDA, 0xE0, 0xFE]))])
        else:
            content += rng.bytes(length)
    return bytes(content)


def expected(data: bytes) -> np.ndarray | None:
    """Return the pixels by Pillow and the rule for more than 8 bits, or None for a refused file."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            tags = getattr(image, "tag_v2", {})
            if image.mode not in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
                return np.asarray(image.convert("RGB"))
            values = np.asarray(image).astype(np.float64)
            if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
                if not (values.min() >= 0 and values.max() <= 255):
                    return None
                if image.mode == "F" and 0 < values.max() <= 1:
                    return None
                grey = np.floor(values)
            else:
                grey = np.floor(values / (16 if tags.get(258, (16,))[0] == 12 else 256))
                grey = 255 - grey if tags.get(262) == 0 else grey
            return np.dstack([grey.astype(np.uint8)] * 3)
    except Exception:
        return None


def compare(data: bytes) -> str:
    """Return how ``decode`` and Pillow disagree on a file; empty if they agree."""
    try:
        ours = decode(data)
    except Exception:
        ours = None
    theirs = expected(data)
    if ours is None and theirs is None:
        return ""
    if ours is None or theirs is None:
        return "accepted, but Pillow refuses it" if theirs is None else "refused, but Pillow accepts it"
    if ours.dtype != np.uint8 or ours.shape != theirs.shape:
        return f"{ours.dtype} {ours.shape} instead of {theirs.shape}"
    return "" if (ours == theirs).all() else f"{(ours != theirs).mean():.1%} of the values differ"


def run(seed: int, seconds: float, keep: Path | None) -> tuple[int, list[str]]:
    """Return the number of cases and a line for each disagreement; huge headers must not exhaust the memory."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 2**22
    try:
        return _run(seed, seconds, keep)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _run(seed: int, seconds: float, keep: Path | None) -> tuple[int, list[str]]:
    rng, cases, found = np.random.default_rng(seed), 0, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        originals = valid_files(rng)
        for original in originals + [damage(file, rng) for file in originals for _ in range(20)]:
            faulthandler.dump_traceback_later(HANG, exit=True)
            difference = compare(original)
            faulthandler.cancel_dump_traceback_later()
            if difference:
                found.append(f"case {cases}: {difference}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}_{cases}.bin").write_bytes(original)
            cases += 1
            if time.monotonic() > end:
                break
    return cases, found


def main() -> int:
    """Run for some seconds; the status is 1 if there is a disagreement."""
    parser = argparse.ArgumentParser(description="Compare the decoder with Pillow on damaged files.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--keep", type=Path, help="folder for files that disagree")
    args = parser.parse_args()
    cases, found = run(args.seed, args.seconds, args.keep)
    for line in found:
        print(line)
    print(f"{cases} cases with seed {args.seed}, {len(found)} disagreements, no hang")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
