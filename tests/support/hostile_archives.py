"""Damaged and hostile files around a pickle: zip archives, the older format, safetensors."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator

from support.hostile_pickles import LEGACY_HEAD, SYSTEM, Case, archive, endless, members, tensor, text, weights
from support.reference import FIXTURES


def archives() -> Iterator[Case]:
    """Zip archives with false records of their members, or that are not checkpoints."""
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
    """Build an archive whose members contain all later members: their sizes add up to many times the file's size."""
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
    terabyte = LEGACY_HEAD + SYSTEM + weights({"w": tensor("0", 1 << 38, (1,), (1,))})
    terabyte += b"\x80\x02](" + text("0") + b"e." + struct.pack("<q", 1 << 38) + bytes(8)
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
        "storage of a terabyte": terabyte,
        "more behind": good + b"x",
        "another magic": b"\x80\x02\x8a\x0a" + b"x" * 10 + good[14:],
        "another protocol": good.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1),
        "tar": b"sys_info".ljust(257, b"\0") + b"ustar\x0000" + bytes(700),
    }.items():
        yield Case(f"legacy: {name}", data)


def safetensors() -> Iterator[Case]:
    """Safetensors files with a false header."""

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
