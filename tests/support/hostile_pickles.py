"""Pickles in damaged and hostile checkpoints, and the archives around them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

from support.reference import FIXTURES

FORMS = ("half", "ckpt_epoch_3", "ddp", "bfloat16")
LEGACY_HEAD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}(X\x10\x00\x00\x00protocol_versionM\xe9\x03X\r\x00\x00\x00little_endian\x88u."


class Case(NamedTuple):
    name: str
    data: bytes
    suffix: str = ".pth"
    may_convert: bool = False


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def plain(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def archive(payload: bytes, storages: dict[str, bytes] | None = None, **others: bytes) -> bytes:
    """Build a checkpoint in the zip format from a pickle and its storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in {
            "data.pkl": payload,
            "byteorder": b"little",
            **{f"data/{k}": v for k, v in (storages or {}).items()},
            **others,
        }.items():
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), data)
    return buffer.getvalue()


def members(form: str) -> tuple[bytes, dict[str, bytes]]:
    """Return the pickle and the storages of one of the good checkpoints."""
    with zipfile.ZipFile(FIXTURES / f"{form}.pth") as file:
        root = next(n for n in file.namelist() if n.endswith("/data.pkl")).removesuffix("data.pkl")
        inside = {n.removeprefix(root): file.read(n) for n in file.namelist()}
    return inside["data.pkl"], {n.removeprefix("data/"): v for n, v in inside.items() if n.startswith("data/")}


def beside_weights(operations: bytes) -> bytes:
    """Build a checkpoint with good weights, beside the objects that ``operations`` put on the stack."""
    body, storages = members("half")
    return archive(b"\x80\x04}(" + text("model") + body[2:-1] + text("x") + operations + b"u.", storages)


# Functions that attacks use, with arguments that would leave a file named PWNED or do worse.
CALLS = (
    ("os", "system", ("touch PWNED",)),
    ("posix", "system", ("touch PWNED",)),
    ("nt", "system", ("touch PWNED",)),
    ("builtins", "eval", ("open('PWNED', 'w')",)),
    ("builtins", "exec", ("open('PWNED', 'w')",)),
    ("builtins", "open", ("PWNED", "w")),
    ("builtins", "__import__", ("antigravity",)),
    ("builtins", "compile", ("0", "x", "eval")),
    ("builtins", "getattr", ("os", "system")),
    ("builtins", "globals", ()),
    ("builtins", "breakpoint", ()),
    ("__builtin__", "eval", ("open('PWNED', 'w')",)),
    ("subprocess", "Popen", (["touch", "PWNED"],)),
    ("subprocess", "check_output", (["touch", "PWNED"],)),
    ("runpy", "run_path", ("x.py",)),
    ("runpy", "_run_code", ("open('PWNED', 'w')", {})),
    ("torch.hub", "load", ("someone/something", "model")),
    ("torch", "load", ("x.pth",)),
    ("torch.jit", "load", ("x.pt",)),
    ("torch.utils.cpp_extension", "load", ("x", "x.cpp")),
    ("torch._dynamo.debug_utils", "run_fwd_maybe_bwd", ()),
    ("webbrowser", "open", ("http://127.0.0.1/",)),
    ("importlib", "import_module", ("antigravity",)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlopen", ("http://127.0.0.1/",)),
    ("pickle", "loads", (b"cos\nsystem\n(X\x0b\x00\x00\x00touch PWNEDtR.",)),
    ("_pickle", "loads", (b"cos\nsystem\n(X\x0b\x00\x00\x00touch PWNEDtR.",)),
    ("numpy", "load", ("x.npy", None, True)),
    ("numpy.testing._private.utils", "runstring", ("open('PWNED', 'w')", {})),
    ("shutil", "rmtree", (".",)),
    ("pathlib", "Path.unlink", ("x",)),
    ("ctypes", "CDLL", ("x.so",)),
    ("pty", "spawn", ("touch",)),
    ("timeit", "timeit", ("open('PWNED', 'w')",)),
    ("operator", "methodcaller", ("system", "touch PWNED")),
    ("functools", "partial", (1, 2)),
    ("code", "interact", ()),
    ("yaml", "unsafe_load", ("!!python/object/apply:os.system ['touch PWNED']",)),
    ("msg_ms.files", "remove_partial", (".",)),
    ("mindspore", "load_checkpoint", ("x.ckpt",)),
)


def calls() -> Iterator[Case]:
    """Every function above, called by different operations, in place of the weights and beside them."""
    for module, name, arguments in CALLS:
        values = b"".join(map(plain, arguments))
        named = f"c{module}\n{name}\n".encode()
        stacked = text(module) + text(name) + b"\x93"
        ways = {
            "reduce": named + b"(" + values + b"tR",
            "stack_global": stacked + b"(" + values + b"tR",
            "inst": b"(" + values + f"i{module}\n{name}\n".encode(),
            "obj": b"(" + named + values + b"o",
            "newobj": named + b"(" + values + b"t\x81",
            "newobj_ex": stacked + b"(" + values + b"t}\x92",
            "build": named + b"}" + text("__setstate__") + named + b"sb",
            "nested": b"cbuiltins\ngetattr\n(" + named + text("__call__") + b"tR(" + values + b"tR",
        }
        # Rotate the operations, so that each is used with many functions.
        order = list(ways)
        start = CALLS.index((module, name, arguments)) % len(order)
        one, two, three = (order[(start + i) % len(order)] for i in (0, 3, 5))
        yield Case(f"{one} {module}.{name} for weights", archive(b"\x80\x04}" + text("model") + ways[one] + b"s."))
        yield Case(f"{two} {module}.{name} beside weights", beside_weights(ways[two]), may_convert=True)
        yield Case(f"{three} {module}.{name} legacy", LEGACY_HEAD + SYSTEM + b"\x80\x04" + ways[three] + b".\x80\x02].")


def identities() -> Iterator[Case]:
    """Persistent ids that are not tensor storages."""
    storage = b"ctorch\nFloatStorage\n"
    for name, identity in {
        "text": text("storage"),
        "number": b"K\x01",
        "module": plain(("module", "os", "x.py", "import os")),
        "system for a class": b"(" + text("storage") + b"cos\nsystem\n" + plain("0") + plain("cpu") + b"K\x01t",
        "endless tuple for a class": b"(" + text("storage") + endless() + plain("0") + plain("cpu") + b"K\x01t",
        "endless tuple": endless(),
        "path": b"(" + text("storage") + storage + text("../../../etc/passwd") + plain("cpu") + b"K\x01t",
        "number for a key": b"(" + text("storage") + storage + b"K\x00" + plain("cpu") + b"K\x01t",
        "negative size": b"(" + text("storage") + storage + plain("0") + plain("cpu") + plain(-1) + b"t",
        "huge size": b"(" + text("storage") + storage + plain("0") + plain("cpu") + plain(1 << 62) + b"t",
        "yes for a size": b"(" + text("storage") + storage + plain("0") + plain("cpu") + b"\x88t",
        "view": b"(" + text("storage") + storage + plain("0") + plain("cpu") + b"K\x01" + plain(("1", 0, 1)) + b"t",
        "storage type unknown": b"(" + text("storage") + b"ctorch\nComplexFloatStorage\n" + plain("00") * 2 + b"K\x01t",
    }.items():
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + b"QK\x00(K\x01t(K\x01t\x89}tR"
        yield Case(f"persistent id: {name}", archive(b"\x80\x02}" + text("w") + tensor + b"s.", {"0": bytes(4)}))
    yield Case("persistent id in text", archive(b"\x80\x02Pmodule os\n."))


def endless() -> bytes:
    """Build a pair that contains the same pair twice, nested sixty times: 2**60 leaves in 120 bytes."""
    return b")" + b"2\x86" * 60


def machines() -> Iterator[Case]:
    """Pickles that try to make the reader itself hang, use memory, or change."""
    many = b"".join(plain(str(i)) + b"K\x01" for i in range(2000))
    for name, operations in {
        "hash of an endless tuple": b"}" + endless() + b"K\x01s",
        "set of endless tuples": b"\x8f(" + endless() + b"\x90",
        "frozen set of endless tuples": b"(" + endless() + b"\x91",
        "endless tuple": endless(),
        "endless list": b"](2" * 60,
        "list in itself": b"]q\x00h\x00a",
        "copies of a dictionary": b"}(" + many + b"uq\x010" + b"ccollections\nOrderedDict\n(h\x01tR0" * 5000 + b"}",
        "arguments copied": b"("
        + b"N" * 20_000
        + b"lq\x000"
        + b"ctorch._utils\n_rebuild_parameter\nh\x00R0" * 7000
        + b"N",
        "arguments without end": b"("
        + b"N" * 20_000
        + b"tq\x000"
        + b"ctorch._utils\n_rebuild_parameter\nh\x00R0" * 7000
        + b"N",
        "one dictionary everywhere": b"}("
        + many
        + b"uq\x000}("
        + b"".join(text(f"k{i}") + b"h\x00" for i in range(9000))
        + b"u",
        "copies in a list": b"](" + b"ccollections\nOrderedDict\n(}tR" * 2000 + b"e",
        "attributes of a dictionary": b"ccollections\nOrderedDict\n)R}" + text("items") + b"cos\nsystem\nsb",
        "attributes of the rebuilding": b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__call__") + b"K\x01sb",
        "attributes of a storage class": b"ctorch\nFloatStorage\n}" + text("name") + text("bad") + b"sb",
        "marks": b"(" * 100_000,
        "dictionaries": b"}" * 200_000,
        "lists in lists": b"]" * 100_000 + b"a" * 99_999,
        "tuples in tuples": b")" + b"\x85" * 100_000,
        "a million memos": b"N" + b"\x94" * 1_000_000,
        "memo far away": b"}r\xff\xff\xff\xff",
        "memo missing": b"h\x07",
        "nothing to pop": b"0",
        "no mark": b"t",
        "endless array": b"\x96" + struct.pack("<Q", 1 << 40),
        "endless bytes": b"\x8e" + struct.pack("<Q", 1 << 62),
        "endless text": b"\x8d" + struct.pack("<Q", 1 << 40),
        "endless frame": b"\x95" + struct.pack("<Q", 1 << 62),
        "long number": b"\x8b" + struct.pack("<i", 1 << 19) + b"\x7f" * (1 << 19),
        "negative length": b"\x8b" + struct.pack("<i", -1),
        "decimal number": b"I" + b"9" * 500_000 + b"\n",
        "decimal long": b"L" + b"9" * 500_000 + b"L\n",
        "hexadecimal": b"I0x" + b"f" * 500_000 + b"\n",
        "keys with one hash": b"}(" + b"".join(plain(i * (2**61 - 1)) + b"N" for i in range(1, 20_000)) + b"u",
        "extension": b"\x82\x01",
        "buffer": b"\x97",
        "read-only buffer": b"N\x98",
        "unknown operation": b"\xff",
        "protocol of the future": b"\x80\xff}",
        "name without end": b"cos" + b"x" * 200_000,
        "long name": b"c" + b"a" * 200_000 + b"\nx\n",
        "names multiplied": text("a" * 4000)
        + b"q\x000"
        + b"".join(b"h\x00" + text(str(i)) + b"\x930" for i in range(4000)),
        "lone surrogates": text("\ud800x") + text("\udfff") + b"\x93)R",
        "control characters": text("os\x1b]0;x\x07\n\n") + text("error: \r\n") + b"\x93)R",
        "name that is no text": b"K\x01K\x02\x93",
        "text of 4-byte letters": text("a" * 100_000 + "\U0001f600") * 3,
    }.items():
        yield Case(f"pickle: {name}", archive(b"\x80\x05" + operations + b"."))
        if len(operations) < 1000:
            yield Case(f"pickle beside weights: {name}", beside_weights(operations), may_convert=True)
    yield Case("pickle: empty", archive(b""))
    yield Case("pickle: no stop", archive(b"\x80\x02}"))
    yield Case("key that hides another", beside_weights(b"N" + text("model") + b"N"))


def tensor(key: str, count: int, shape: object, strides: object, offset: int = 0, kind: str = "FloatStorage") -> bytes:
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + plain(count) + b"tQ"
    view = plain(offset) + plain(shape) + plain(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89ccollections\nOrderedDict\n)RtR"


def weights(entries: dict[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."
