"""Damaged and hostile checkpoint files, always the same: ``cases`` gives more than 300 of them.

Each is a name, the bytes, the ending of the file's name and whether it may convert all the same: where it only names
what is never run, or where the format has nothing that a flipped bit would contradict.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from support.hostile_pickles import (
    FORMS,
    LEGACY_HEAD,
    SYSTEM,
    Case,
    archive,
    calls,
    endless,
    identities,
    machines,
    members,
    tensor,
    text,
    weights,
)
from support.reference import FIXTURES


def cases() -> Iterator[Case]:
    for make in (calls, identities, machines, tensors, claims, archives, legacies, safetensors, mutations, swaps):
        yield from make()


def tensors() -> Iterator[Case]:
    """Views that make no sense, reach beyond their storage, or claim more than it holds."""
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
    """Names and shapes of models that would take all memory or time to build."""
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
        """``count`` weights by the numbers in their names, each the same one number."""
        named = b"".join(text(pattern.format(i)) + b"h\x07" for i in range(1, count))
        first = text(pattern.format(0)) + tensor("0", count, (1,), (1,)) + b"q\x07"
        return archive(b"\x80\x02}(" + first + named + b"u.", {"0": bytes(4 * count)})

    yield Case("3900 names that no rule takes", crowd("stranger{}", 3900))
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


def archives() -> Iterator[Case]:
    """Zip archives that lie about their members, or are no checkpoints."""
    body, storages = members("half")
    good = archive(body, storages)
    for name, names in {
        "above": ("../../PWNED", "../PWNED.pth"),
        "absolute": ("/tmp/PWNED", "/PWNED"),
        "backslashes": ("..\\..\\PWNED", "C:\\PWNED"),
        "the output": ("out.ckpt", "archive/out.ckpt"),
    }.items():
        data = archive(body, storages, **{f"../{n}" if n[0] == "." else n: b"x" for n in names})
        yield Case(f"path traversal: {name}", data, may_convert=True)
    for root in ("..", "/tmp/x", ""):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr(f"{root}/data.pkl", body)
            for key, data in storages.items():
                file.writestr(f"{root}/data/{key}", data)
        yield Case(f"root {root!r}", buffer.getvalue(), may_convert=True)
    for target in ("data.pkl", "data/0", "all"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in {"data.pkl": body, **{f"data/{k}": v for k, v in storages.items()}}.items():
                kind = zipfile.ZIP_DEFLATED if target in (name, "all") else zipfile.ZIP_STORED
                file.writestr(f"archive/{name}", data + (bytes(50 << 20) if kind and name == target else b""), kind)
        yield Case(f"compressed {target}", buffer.getvalue())
    yield Case("compressed zeros", _deflated_zeros())
    yield Case("members that overlap", _overlapping())
    yield Case(
        "members twice", good[: good.rindex(b"PK\x05\x06")] + good[good.rindex(b"PK\x05\x06") :] * 2, ".pth", True
    )
    doubled = io.BytesIO(good)
    with zipfile.ZipFile(doubled, "a") as file:
        file.writestr("archive/data/0", bytes(len(storages["0"])))
    yield Case("a storage twice", doubled.getvalue())
    yield Case("two pickles", archive(body, storages, **{"x/data.pkl": body}))
    yield Case("20000 members", archive(body, storages, **{str(i): b"" for i in range(20_000)}))
    yield Case("big-endian", good.replace(b"little", b"big\0\0\0"))
    yield Case("only an end", good[good.rindex(b"PK\x05\x06") :])
    yield Case("an empty archive", b"PK\x05\x06" + bytes(18))
    central = good.index(b"PK\x01\x02")
    end = good.rindex(b"PK\x05\x06")
    for name, place, value in (
        ("encrypted", central + 8, b"\x01\x00"),
        ("size of 4 GB", central + 20, b"\xfe\xff\xff\xff" * 2),
        ("method unknown", central + 10, b"\x63\x00"),
        ("checksum", central + 16, b"\0\0\0\0"),
        ("place of a member", central + 42, b"\xff\xff\xff\x7f"),
        ("list of 4 GB", end + 12, b"\xf0\xff\xff\xff"),
        ("place of the list", end + 16, b"\xf0\xff\xff\xff"),
        ("place of the list before it", end + 16, b"\0\0\0\0"),
        ("list of nothing", end + 12, b"\0\0\0\0"),
        ("zip64 list", end + 12, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("extra field too long", central + 30, b"\xff\xff"),
    ):
        yield Case(f"zip: {name}", good[:place] + value + good[place + len(value) :])


def _deflated_zeros() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("archive/data.pkl", "w") as member:
        for _ in range(200):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def _overlapping() -> bytes:
    """Each member's bytes hold all later members: what a thousand of them promise is 100 times what is there."""
    count, payload, names = 300, bytes(1 << 16), []
    local, rest = {}, payload
    for i in reversed(range(count)):
        name = f"a/data/{i}".encode()
        fields = (20, 0, 0, 0, 0, zlib.crc32(rest), len(rest), len(rest), len(name), 0)
        rest = b"PK\x03\x04" + struct.pack("<5H3I2H", *fields) + name + rest
        local[i] = (name, fields, len(rest))
        names.append(name)
    data = rest
    total = len(data)
    central = b""
    for i in range(count):
        name, fields, length = local[i]
        central += (
            b"PK\x01\x02"
            + struct.pack(
                "<6H3I5H2I", 20, *fields[:1], *fields[1:5], *fields[5:8], len(name), 0, 0, 0, 0, 0, total - length
            )
            + name
        )
    end = b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, count, count, len(central), total, 0)
    return data + central + end


def legacies() -> Iterator[Case]:
    """The older format, with each of its parts wrong."""
    good = (FIXTURES / "legacy.pth").read_bytes()
    tensors_ = weights({"w": tensor("0", 2, (2,), (1,))})
    for name, data in {
        "head alone": LEGACY_HEAD,
        "system missing": LEGACY_HEAD + b"N.",
        "big-endian": LEGACY_HEAD + SYSTEM.replace(b"\x88", b"\x89"),
        "order is endless": LEGACY_HEAD + SYSTEM + tensors_ + b"\x80\x02](" + endless() + b"e.",
        "order of numbers": LEGACY_HEAD + SYSTEM + tensors_ + b"\x80\x02](K\x00e.",
        "order twice": LEGACY_HEAD + SYSTEM + tensors_ + b"\x80\x02](" + text("0") * 2 + b"e." + bytes(16),
        "order missing": LEGACY_HEAD + SYSTEM + tensors_,
        "size negative": LEGACY_HEAD + SYSTEM + tensors_ + b"\x80\x02](" + text("0") + b"e." + b"\xff" * 16,
        "size wrong": LEGACY_HEAD + SYSTEM + tensors_ + b"\x80\x02](" + text("0") + b"e." + b"\x03" + bytes(23),
        "storage of a terabyte": LEGACY_HEAD + SYSTEM + weights({"w": tensor("0", 1 << 38, (1,), (1,))})
        + b"\x80\x02](" + text("0") + b"e." + struct.pack("<q", 1 << 38) + bytes(8),
        "more behind": good + b"x",
        "another magic": b"\x80\x02\x8a\x0a" + b"x" * 10 + good[14:],
        "another protocol": good.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1),
        "tar": b"sys_info".ljust(257, b"\0") + b"ustar\x0000" + bytes(700),
    }.items():  # fmt: skip
        yield Case(f"legacy: {name}", data)


def safetensors() -> Iterator[Case]:
    """Safetensors files whose header lies."""

    def file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw) if length is None else length) + raw + data

    def entry(begin: int, end: int, shape: object = (1,), kind: object = "F32") -> dict:
        return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}

    zeros = {f"w{i}": entry(0, 0, (0,)) for i in range(12_000)}
    for name, data in {
        "empty": b"",
        "short": b"\x01\x00",
        "length of 2**63": file({}, length=1 << 63),
        "length of 2**64 - 1": file({}, length=(1 << 64) - 1),
        "length of 200 MB": file({}, length=200 << 20),
        "length beyond the file": file({"a": entry(0, 4)}, bytes(4), length=4096),
        "length 0": file(b""),
        "no JSON": file(b"\xff" * 64),
        "a list": file([1, 2]),
        "deep": file(b"[" * 100_000),
        "deep metadata": file(b'{"__metadata__":' + b'{"a":' * 50_000),
        "no tensors": file({}),
        "metadata alone": file({"__metadata__": {"format": "pt"}}),
        "metadata of numbers": file({"__metadata__": {"format": 1}, "a": entry(0, 4)}, bytes(4)),
        "overlap": file({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
        "overlap in part": file({"a": entry(0, 8, (2,)), "b": entry(4, 12, (2,))}, bytes(12)),
        "gap": file({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
        "beyond": file({"a": entry(0, 1 << 40, (1 << 38,))}, bytes(4)),
        "backwards": file({"a": entry(4, 0)}, bytes(4)),
        "negative": file({"a": entry(-4, 0)}, bytes(4)),
        "shape overflow": file({"a": entry(0, 4, (1 << 40, 1 << 40))}, bytes(4)),
        "shape overflow to nothing": file({"a": entry(0, 0, (1 << 63, 2))}),
        "shape of text": file({"a": entry(0, 4, "x")}, bytes(4)),
        "shape wrong": file({"a": entry(0, 4, (2,))}, bytes(4)),
        "type unknown": file({"a": entry(0, 4, (1,), "F99")}, bytes(4)),
        "type of eight bits": file({"norm.weight": entry(0, 4, (4,), "F8_E4M3")}, bytes(4)),
        "type a number": file({"a": entry(0, 4, (1,), 7)}, bytes(4)),
        "integers": file({"norm.weight": entry(0, 8, (1,), "I64")}, bytes(8)),
        "12000 empty tensors": file(zeros),
        "empty weight": file({"norm.weight": entry(0, 0, (0,))}),
        "name of control characters": file({"\x1b]0;x\x07": entry(0, 4)}, bytes(4)),
        "more behind": file({"a": entry(0, 4)}, bytes(400)),
        "a pickle": (FIXTURES / "half.pth").read_bytes(),
    }.items():
        yield Case(f"safetensors: {name}", data, ".safetensors")


def mutations() -> Iterator[Case]:
    """Good files with bytes flipped, cut out or moved; in half of them the pickle, with its checksum made right."""
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
    """Types of whole checkpoints swapped; those of the same width give other weights, which nothing can notice."""
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
    """A good checkpoint of this package, ``.ckpt`` or ``.safetensors``, damaged; some with the checksum made right."""
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
        right = suffix == ".ckpt" and number % 4 > 1
        yield Case(f"{suffix} damaged, {number}", bytes(data), suffix, may_convert=right)
    for name, data in {
        "empty": b"",
        "checksum alone": b"crc_num" + bytes(10),
        "text": b"no checkpoint",
        "a pickle": (FIXTURES / "half.pth").read_bytes(),
        "length without end": b"\x0a\xff\xff\xff\xff\x7f" + checkpoint[6:],
        "zeros": bytes(4096),
    }.items():
        yield Case(f"{suffix}: {name}", data, suffix)


def write_cases(folder: Path, found: list[Case]) -> list[Case]:
    """Write the cases into ``folder`` as ``<number><suffix>``; gives them again."""
    for number, case in enumerate(found):
        (folder / f"{number}{case.suffix}").write_bytes(case.data)
    return found
