"""Random generators for many samples at once, equal to NumPy's ``default_rng((seed, epoch, index))``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

# Constants of numpy.random.SeedSequence, which NumPy promises not to change.
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT, _SHIFT, _POOL = np.uint32(0xCA01F9DD), np.uint32(0x4973F715), np.uint32(16), 4
_WORD = 2**32


class _State(np.random.bit_generator.ISeedSequence):
    """The state that a SeedSequence would generate for PCG64."""

    def __init__(self, words: np.ndarray):
        self.words = words

    def generate_state(self, n_words, dtype=np.uint32):
        return self.words


def generators(seed: int, epoch: int, indices: Sequence[int] | np.ndarray) -> list[np.random.Generator]:
    """Return ``np.random.default_rng((seed, epoch, index))`` for each index, at a third of the time.

    Args:
        seed: A number from 0.
        epoch: A number from 0.
        indices: Numbers from 0.
    """
    indices = np.asarray(indices, np.int64)
    if max(seed, epoch, int(indices.max(initial=0))) >= _WORD:  # then one of the numbers is more than one word
        return [np.random.default_rng((seed, epoch, int(index))) for index in indices]
    states = _states([np.uint32(seed), np.uint32(epoch), indices.astype(np.uint32)], len(indices))
    return [np.random.Generator(np.random.PCG64(cast(np.random.SeedSequence, _State(state)))) for state in states]


def _states(entropy: Sequence[np.ndarray | np.uint32], count: int) -> np.ndarray:
    """Return uint64 (count, 4): the states of SeedSequences with these words of entropy."""
    constant = _INIT_A

    def scramble(value: np.ndarray) -> np.ndarray:
        nonlocal constant
        value = value ^ np.uint32(constant)
        constant = constant * _MULT_A % _WORD
        value = value * np.uint32(constant)
        return value ^ (value >> _SHIFT)

    padded = [*entropy, np.uint32(0)][:_POOL]
    pool = [scramble(np.broadcast_to(word, (count,))) for word in padded]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                mixed = pool[target] * _MIX_LEFT - scramble(pool[source]) * _MIX_RIGHT
                pool[target] = mixed ^ (mixed >> _SHIFT)
    words, constant = np.empty((count, 2 * _POOL), np.uint32), _INIT_B
    for i in range(2 * _POOL):
        value = pool[i % _POOL] ^ np.uint32(constant)
        constant = constant * _MULT_B % _WORD
        value = value * np.uint32(constant)
        words[:, i] = value ^ (value >> _SHIFT)
    return words.astype("<u4").view("<u8").astype(np.uint64)
