"""COCO's run-length encoding of masks, in NumPy."""

from __future__ import annotations

import numpy as np


def encode_rle(bitmap: np.ndarray, height: int, width: int, top: int = 0, left: int = 0) -> dict:
    """Encode a mask as COCO does: lengths of alternating runs, column by column, as text.

    Args:
        bitmap: a part of the mask, bool; the rest is background.
        height: of the whole mask.
        width: of the whole mask.
        top: row of the part's first pixel.
        left: column of the part's first pixel.

    Returns:
        ``{"size": [height, width], "counts": str}``.
    """
    rows, columns = bitmap.shape
    # One row of background below each column separates the runs of neighbouring columns.
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = bitmap.T
    change = np.diff(padded, axis=1)
    column, row = np.nonzero(change == 1)
    starts = (column + left) * height + row + top
    column, row = np.nonzero(change == -1)
    ends = (column + left) * height + row + top
    # Runs that touch across two columns are one.
    apart = starts[1:] > ends[:-1]
    starts = starts[np.concatenate([[True], apart])] if len(starts) else starts
    ends = ends[np.concatenate([apart, [True]])] if len(ends) else ends
    edges = np.stack([starts, ends], 1).reshape(-1)
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [int(height), int(width)], "counts": _counts_text(counts.tolist())}


def _counts_text(counts: list[int]) -> str:
    """Return COCO's text: from the fourth on, differences to the run of the same kind before, in base 32."""
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text.append(chr((digit | 32 if more else digit) + 48))
    return "".join(text)


def decode_rle(rle: dict) -> np.ndarray:
    """Decode COCO's run-length encoding.

    Args:
        rle: ``{"size": [height, width], "counts": str, bytes or a list of run lengths}``.

    Returns:
        (height, width), bool.
    """
    counts = rle["counts"]
    if not isinstance(counts, list):
        counts = run_lengths(counts if isinstance(counts, bytes) else counts.encode())
    height, width = rle["size"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


def decode_columns(counts: bytes, height: int, left: int, right: int) -> np.ndarray:
    """Decode columns of a mask.

    Args:
        counts: Compressed run lengths.
        height: Height of the mask.
        left: The first column.
        right: The column after the last one.

    Returns:
        uint8 (height, right - left), 0 or 1.
    """
    edges = np.cumsum(run_lengths(counts))
    pixels = np.zeros((height, right - left), np.uint8)
    # Runs alternate, so an edge changes all pixels from it on, column by column.
    starts = np.searchsorted(edges, np.arange(left, right) * height)
    inner = edges[starts[0] : np.searchsorted(edges, right * height)] if right > left else edges[:0]
    column, row = np.divmod(inner, height)
    np.bitwise_xor.at(pixels.reshape(-1), row * (right - left) + column - left, np.uint8(1))
    if right > left:
        pixels[0] ^= (starts & 1).astype(np.uint8)
    step = 1
    while step < height:  # the exclusive or of all rows above, in a few passes
        pixels[step:] ^= pixels[:-step].copy()
        step *= 2
    return pixels


def run_lengths(counts: bytes) -> np.ndarray:
    """Return the lengths of compressed runs, int64 (runs,).

    Raises:
        ValueError: The text is not COCO's compressed form.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    more = digits & 32
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or more[-1]:
        raise ValueError("not compressed run lengths")
    last = np.flatnonzero(more == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    if place.max() > 6:
        raise ValueError("not compressed run lengths")
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= ((digits[last] & 16) > 0) * (32 << (5 * place[last]))
    # From the fourth on, values are differences to the run of the same kind before.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
