"""Read the pickle in a PyTorch checkpoint as data: nothing that it names is imported, no function is called.

``pickletools`` of the standard library cuts a pickle into operations without carrying any out. The machine here does
those that make plain values (numbers, text, lists, tuples, dictionaries) and knows three functions by name, in
``_CALLS``: what they stand for is rebuilt here. Everything else that a pickle asks for becomes an inert
:class:`OpaqueObject`. Memory and time follow the length of the pickle: each operation makes at most one object. Nothing
is copied, hashed or printed whose size the file could multiply.
"""

from __future__ import annotations

import pickletools
from typing import Any, BinaryIO

from ...checkpoint.types import BrokenCheckpoint
from .types import STORAGES, Name, OpaqueObject, PickleScan, Storage, StoredTensor

_LONGEST_TEXT = 4096
_MOST_NAMES, _LONGEST_NAME = 100, 200


def most_operations(file_size: int) -> int:
    """How many operations a checkpoint's pickle may have.

    PyTorch needs about 25 for a tensor. At about 100 bytes each, what they make stays within three times the file's
    size, and 5 MB for small files.
    """
    return min(50_000 + file_size // 40, 1_000_000)


def unpickle(file: BinaryIO, findings: PickleScan, most: int) -> Any:
    """The value of the pickle that ``file`` stands at; ``file`` then stands behind it.

    Raises BrokenCheckpoint for what can't be in a checkpoint, or after ``most`` operations. A damaged pickle raises
    whatever its operations do: ValueError, IndexError, KeyError, AttributeError, TypeError.
    """
    machine = _Machine(findings)
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count >= most:
            raise BrokenCheckpoint(f"its pickle has more than {most:,} operations, too many for a file of its size")
        if operation.name == "STOP":
            break
        machine.do(operation.name, argument)
    return machine.stack.pop()


# Operations that put their argument on the stack.
_VALUE_NAMES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_VALUES = frozenset(_VALUE_NAMES.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Operations that make one thing of the last few on the stack.
_JOINING = {
    "TUPLE1": (1, tuple),
    "TUPLE2": (2, tuple),
    "TUPLE3": (3, tuple),
    "NEWOBJ": (2, lambda _: OpaqueObject()),
    "NEWOBJ_EX": (3, lambda _: OpaqueObject()),
}


class _Machine:
    """The stack machine of pickle, protocols 0 to 5."""

    def __init__(self, findings: PickleScan):
        self.findings = findings
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, operation: str, argument: Any) -> None:
        if operation in _VALUES:
            self.stack.append(_bounded(argument))
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _JOINING:
            count, join = _JOINING[operation]
            self.stack[-count:] = [join(self.stack[-count:])]
        elif (method := getattr(self, f"do_{operation.lower()}", None)) is not None:
            method(argument)
        else:
            raise BrokenCheckpoint(f"its pickle has an operation {operation}, which no PyTorch checkpoint has")

    def from_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def do_proto(self, _: Any) -> None:
        pass

    do_frame = do_proto

    def do_mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def do_pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def do_pop_mark(self, _: Any) -> None:
        self.from_mark()

    def do_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def do_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    do_binget = do_long_binget = do_get

    def do_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def do_list(self, _: Any) -> None:
        self.stack.append(self.from_mark())

    def do_append(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def do_appends(self, _: Any) -> None:
        self.extend(self.from_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, OpaqueObject):
            raise BrokenCheckpoint("its pickle appends to what is no list")

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.from_mark()))

    def do_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def do_dict(self, _: Any) -> None:
        items = self.from_mark()
        self.stack.append({})
        self.set_items(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def do_setitems(self, _: Any) -> None:
        self.set_items(self.from_mark())

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                # The hash of a tuple walks through all that it holds, which a few bytes can make endless.
                if isinstance(key, (tuple, list, dict)):
                    raise BrokenCheckpoint(f"a dictionary in it has a {type(key).__name__} for a key")
                target[key] = value
        elif not isinstance(target, OpaqueObject):
            raise BrokenCheckpoint("its pickle sets items of what is no dictionary")

    def do_empty_set(self, _: Any) -> None:
        self.stack.append(OpaqueObject())

    def do_additems(self, _: Any) -> None:
        self.from_mark()

    def do_frozenset(self, _: Any) -> None:
        self.from_mark()
        self.do_empty_set(_)

    def do_global(self, text: str) -> None:
        self.name(*text.split(" ", 1))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(module, name)

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise BrokenCheckpoint("its pickle names a class or function by what is no text")
        found = Name(module, name)
        ignored = self.findings.ignored
        if found not in _CALLS and found not in _STORAGE_NAMES and len(ignored) < _MOST_NAMES:
            ignored.add(f"{module[:_LONGEST_NAME]}.{name[:_LONGEST_NAME]}")
        self.stack.append(found)

    def do_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        call = _CALLS.get(function) if isinstance(function, Name) else None
        # Arguments are copied for a call, and the same long list could be called with any number of times.
        if call is not None and (not isinstance(arguments, tuple) or len(arguments) > 16):
            raise BrokenCheckpoint("its pickle calls a function with what are no arguments")
        self.stack.append(OpaqueObject() if call is None else call(*arguments))

    def do_obj(self, _: Any) -> None:
        self.from_mark()
        self.stack.append(OpaqueObject())

    def do_inst(self, text: str) -> None:
        self.do_obj(None)
        self.do_global(text)
        self.stack.pop()

    def do_build(self, _: Any) -> None:
        self.stack.pop()  # attributes to set on the object below; none here has any use for them

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.storage(self.stack.pop()))

    def storage(self, identity: Any) -> Storage | OpaqueObject:
        """The storage of ('storage', class, key, location, count[, view metadata of the legacy format])."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise BrokenCheckpoint("names an object that is no tensor storage")
        kind, key, count = identity[1], identity[2], identity[4]
        if not isinstance(key, str) or not _is_count(count):
            raise BrokenCheckpoint("a tensor storage has no proper name or size")
        if len(identity) == 6 and identity[5] is not None:
            raise BrokenCheckpoint("holds storage views of a PyTorch before 0.4; save it again with a newer one")
        if not isinstance(kind, Name) or kind not in _STORAGE_NAMES:
            raise BrokenCheckpoint(f"holds tensors of a type other than {', '.join(STORAGES)}")
        found = self.findings.storages.setdefault(key, Storage(kind.name, key, count))
        if (found.kind, found.count) != (kind.name, count):
            raise BrokenCheckpoint(f"names tensor storage {key} with two types or sizes")
        return found


def _bounded(value: Any) -> Any:
    """A value of the pickle, where it is of a size that a name, a shape or a setting has."""
    too_large = (isinstance(value, int) and value.bit_length() > 64) or (
        isinstance(value, (str, bytes, bytearray)) and len(value) > _LONGEST_TEXT
    )
    return OpaqueObject() if too_large else value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _ordered_dict(*arguments: Any) -> dict:
    # torch.save gives the items afterwards, an operation each; copying them could be asked for any number of times.
    if arguments:
        raise BrokenCheckpoint("an OrderedDict in it is made from a copy; save it again with PyTorch under Python 3")
    return {}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    sound = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if (
        not sound
        or len(shape) != len(strides)
        or len(shape) > 16
        or not all(map(_is_count, (offset, *shape, *strides)))
    ):
        raise BrokenCheckpoint("a tensor's storage, shape or strides make no sense")
    return StoredTensor(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Any:
    return data


_CALLS = {
    Name("collections", "OrderedDict"): _ordered_dict,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
}
_STORAGE_NAMES = frozenset(Name("torch", name) for name in STORAGES)
