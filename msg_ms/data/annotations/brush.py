"""Label Studio's compressed form of brush strokes (the package rle-pack, of RGBA bytes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_CHANNELS = 4
_SIZE_BITS, _WORD_BITS, _LENGTH_BITS = 32, 5, 4


def decode_brush(values: Sequence[Any], height: int, width: int) -> np.ndarray:
    """Return the painted pixels of a brush, bool (H, W): those whose alpha is not 0.

    A header has the number of values (32 bits), the bits of a value less 1 (5), and four lengths of counts less 1 (4
    each). Then each run has a bit for its kind, the index of its count's length (2 bits), its count less 1, and either
    one value for all or all values. See encoder and decoder in label-studio-sdk's ``converter/brush.py``.

    Args:
        values: The bytes.
        height: Height of the image.
        width: Width of the image.

    Raises:
        ValueError: They are not such a form of RGBA pixels of this size.
    """
    data = np.array(values)
    if data.ndim != 1 or data.dtype.kind != "i" or data.size == 0 or data.min() < 0 or data.max() > 255:
        raise ValueError("not a list of bytes")
    bits = _Bits(data.astype(np.uint8))
    count = bits.read(_SIZE_BITS)
    if count != height * width * _CHANNELS:
        raise ValueError(f"{count} values for {height} x {width} pixels")
    word = bits.read(_WORD_BITS) + 1
    lengths = [bits.read(_LENGTH_BITS) + 1 for _ in range(4)]
    pixels = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        repeated = bits.read(1)
        end = place + bits.read(lengths[bits.read(2)]) + 1
        if end > count:
            raise ValueError("runs beyond the last value")
        pixels[place:end] = bits.read(word) if repeated else bits.read_words(end - place, word)
        place = end
    return pixels.reshape(height, width, _CHANNELS)[..., -1] > 0


class _Bits:
    """Numbers of any count of bits, most significant bit first."""

    def __init__(self, data: np.ndarray):
        self.bits = np.unpackbits(data)
        self.place = 0

    def read(self, count: int) -> int:
        return int(self.read_words(1, count)[0])

    def read_words(self, words: int, count: int) -> np.ndarray:
        """Return some numbers of ``count`` bits each, int64 (words,)."""
        end = self.place + words * count
        if end > len(self.bits):
            raise ValueError("the values end early")
        part = self.bits[self.place : end].reshape(words, count).astype(np.int64)
        self.place = end
        return part @ (1 << np.arange(count - 1, -1, -1, dtype=np.int64))
