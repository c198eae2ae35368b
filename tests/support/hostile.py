"""Damaged and hostile checkpoint files; ``cases`` yields over 500, always the same.

Each has a name, the bytes, the suffix of the file, and whether it may still convert. It may if it only names functions
that are never called, or if the format has no redundancy that would reveal a flipped bit.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from support.hostile_archives import archives, legacies, safetensors
from support.hostile_pickles import FORMS, Case, archive, calls, identities, machines, members, tensor, text, weights
from support.reference import FIXTURES


def cases() -> Iterator[Case]:
    for make in (calls, identities, machines, tensors, claims, archives, legacies, safetensors, mutations, swaps):
        yield from make()


def tensors() -> Iterator[Case]:
    """Views that are invalid, extend beyond their storage, or claim more than it has."""
    for name, arguments in {
        "huge by stride 0": ((1 << 20, 1 << 19), (0, 0)),
        "all of it by stride 0": ((256,), (0,)),
        "overlap": ((16, 16), (1, 1)),
        "beyond": ((257,), (1,)),
        "far beyond": ((2, 2), (1 << 39, 1)),
        "negative stride": ((2,), (-1,)),
        "huge stride": ((2,), (1 << 70,)),
        "no dimensions": ((), ()),
        "nothing": ((0, 1 << 39), (1, 1)),
        "too many dimensions": ((1,) * 65, (1,) * 65),
        "strides missing": ((2, 2), (1,)),
        "text for a shape": ("ab", "cd"),
        "shape of shapes": (((1,),), (1,)),
        "yes for a size": ((True,), (True,)),
    }.items():
        data = archive(weights({"head.bias": tensor("0", 256, *arguments)}), {"0": bytes(1024)})
        yield Case(f"tensor: {name}", data)
    many = {f"w{i}": tensor("0", 65536, (65536,), (1,)) for i in range(500)}
    yield Case("500 tensors of one storage", archive(weights(many), {"0": bytes(4 * 65536)}))
    halves = {f"w{i}": tensor("0", 65536, (65536,), (1,), kind="BFloat16Storage") for i in range(500)}
    yield Case("500 bfloat16 tensors of one storage", archive(weights(halves), {"0": bytes(2 * 65536)}))
    kinds = [
        tensor("0", 256 // size, (1,), (1,), kind=kind) for kind, size in (("FloatStorage", 4), ("LongStorage", 8))
    ]
    two = weights({"a": kinds[0], "b": kinds[1]})
    yield Case("one storage, two types", archive(two, {"0": bytes(256)}))
    for size in (0, 1020, 1028):
        short = archive(weights({"head.bias": tensor("0", 256, (256,), (1,))}), {"0": bytes(size)})
        yield Case(f"storage of {size} bytes for 1024", short)


def claims() -> Iterator[Case]:
    """Names and shapes of models that would need all memory or time to build."""
    small = {"msg_tokens": (1, 4, 1, 2), "patch_embed.proj.weight": (2, 3, 7, 7), "norm.weight": (4,)}

    def model(stages: int, blocks: int, table: tuple[int, ...], hidden: int = 8, **others: tuple[int, ...]) -> bytes:
        shapes = {**small, **others}
        for i, j in itertools.product(range(stages), range(blocks)):
            shapes[f"layers.{i}.blocks.{j}.attn.relative_position_bias_table"] = table
            shapes[f"layers.{i}.blocks.{j}.mlp.fc1.weight"] = (hidden, 2)
        entries, storages = {}, {}
        for index, (name, shape) in enumerate(shapes.items()):
            count = int(np.prod(shape, dtype=object))
            strides = [int(np.prod(shape[k + 1 :], dtype=object)) for k in range(len(shape))]
            entries[name] = tensor(str(index), count, tuple(shape), tuple(strides))
            storages[str(index)] = bytes(min(4 * count, 1 << 22))
        return archive(weights(entries), storages)

    yield Case("window of 500", model(1, 1, (999**2, 1)))
    yield Case("window of 33", model(1, 1, (65**2, 1)))
    yield Case("window of 0", model(1, 1, (1, 1)))
    yield Case("no heads", model(1, 1, (49, 0)))
    yield Case("60 stages", model(60, 1, (49, 1)))
    yield Case("3000 blocks", model(1, 3000, (49, 1)))

    def crowd(pattern: str, count: int) -> bytes:
        """Build ``count`` weights with numbered names; all of them view the same number."""
        named = b"".join(text(pattern.format(i)) + b"h\x07" for i in range(1, count))
        first = text(pattern.format(0)) + tensor("0", count, (1,), (1,)) + b"q\x07"
        return archive(b"\x80\x02}(" + first + named + b"u.", {"0": bytes(4 * count)})

    yield Case("3900 names without a rule", crowd("stranger{}", 3900))
    yield Case("3900 names of blocks", crowd("layers.0.blocks.{}.attn.proj.bias", 3900))
    yield Case("3900 names of far blocks", crowd("layers.0.blocks.1{:05}.attn.proj.bias", 3900))
    yield Case("20000 names", crowd("x{}", 20_000))
    yield Case("hidden layer of 200000", model(1, 1, (49, 1), 200_000))
    yield Case("embedding of 5000", model(1, 1, (49, 1), **{"patch_embed.proj.weight": (5000, 1, 7, 7)}))
    yield Case("embedding of 2**39, empty", model(1, 1, (49, 1), **{"patch_embed.proj.weight": (1 << 39, 0, 7, 7)}))
    yield Case("region of 500", model(1, 1, (49, 1), msg_tokens=(1, 250_000, 1, 2)))
    yield Case("region of 0", model(1, 1, (49, 1), msg_tokens=(1, 0, 1, 2)))
    yield Case("flat tables", model(1, 1, (49,)))
    yield Case("positions without end", model(1, 1, (49, 1), absolute_pos_embed=(1, 1_000_001, 1)))


def mutations() -> Iterator[Case]:
    """Good files with bytes flipped, removed or moved; in half of them inside the pickle, with a valid checksum."""
    draws = random.Random(7)
    for number in range(90):
        form = (*FORMS[:3], "legacy")[number % 4]
        data = bytearray((FIXTURES / f"{form}.pth").read_bytes())
        begin, length = draws.randrange(len(data)), draws.randrange(1, 64)
        kind = ("flip", "cut", "remove", "move")[number // 4 % 4]
        if kind == "flip":
            for i in range(begin, min(begin + length, len(data))):
                data[i] ^= draws.randrange(1, 256)
        elif kind == "cut":
            del data[begin:]
        elif kind == "remove":
            del data[begin : begin + length]
        else:
            source = draws.randrange(len(data) - length)
            data[begin : begin + length] = data[source : source + length]
        yield Case(f"{form}: {kind} {length} at {begin}", bytes(data), may_convert=kind != "cut")
    for number in range(90):
        body, storages = members(FORMS[number % 3])
        changed = bytearray(body)
        for _ in range(draws.randrange(1, 4)):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        yield Case(
            f"pickle of {FORMS[number % 3]} changed, {number}", archive(bytes(changed), storages), may_convert=True
        )


def swaps() -> Iterator[Case]:
    """Whole checkpoints with another type; one of the same width changes the weights, which cannot be detected."""
    for form, own in (("half", "HalfStorage"), ("ddp", "FloatStorage"), ("bfloat16", "BFloat16Storage")):
        body, storages = members(form)
        for other in (
            "HalfStorage",
            "BFloat16Storage",
            "FloatStorage",
            "IntStorage",
            "DoubleStorage",
            "UntypedStorage",
        ):
            if other != own:
                data = archive(body.replace(f"\n{own}\n".encode(), f"\n{other}\n".encode()), storages)
                yield Case(f"{form} as {other}", data, may_convert={own, other} == {"HalfStorage", "BFloat16Storage"})


def ours(checkpoint: bytes, suffix: str) -> Iterator[Case]:
    """A good checkpoint of this package, ``.ckpt`` or ``.safetensors``, damaged; some with a valid checksum."""
    draws = random.Random(11)
    marker = checkpoint.rfind(b"crc_num")
    for number in range(40):
        data = bytearray(checkpoint)
        begin = draws.randrange(len(data))
        if number % 4 == 0:
            del data[begin:]
        elif number % 4 == 1 or suffix != ".ckpt":
            data[begin] ^= draws.randrange(1, 256)
        else:
            begin = draws.randrange(0, min(marker, 4096) if number % 4 == 2 else marker)
            data[begin] ^= draws.randrange(1, 256)
            data[marker:] = b"crc_num" + zlib.crc32(data[:marker]).to_bytes(10, "big")
        valid_checksum = suffix == ".ckpt" and number % 4 > 1
        yield Case(f"{suffix} damaged, {number}", bytes(data), suffix, may_convert=valid_checksum)
    for name, data in {
        "empty": b"",
        "checksum alone": b"crc_num" + bytes(10),
        "text": b"no checkpoint",
        "a pickle": (FIXTURES / "half.pth").read_bytes(),
        "length without end": b"\x0a\xff\xff\xff\xff\x7f" + checkpoint[6:],
        "zeros": bytes(4096),
    }.items():
        yield Case(f"{suffix}: {name}", data, suffix)


def write_cases(folder: Path, files: list[Case]) -> None:
    """Write the cases into ``folder`` as ``<number><suffix>``."""
    for number, case in enumerate(files):
        (folder / f"{number}{case.suffix}").write_bytes(case.data)
