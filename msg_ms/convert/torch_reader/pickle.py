"""Read the pickle in a PyTorch checkpoint as data; nothing that it names is imported or called.

``pickletools`` of the standard library splits a pickle into operations and executes none. The machine here executes
those that make plain values (numbers, text, lists, tuples, dictionaries). It knows three functions by name, listed in
``_CALLS``, and rebuilds their results. Everything else that a pickle asks for becomes an inert ``OpaqueObject``.

Memory and time are proportional to the length of the pickle: each operation makes at most one object. Objects whose
size the file could multiply are never copied, hashed or printed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

from ...checkpoint.types import BrokenCheckpoint
from .types import STORAGE_CLASSES, Name, OpaqueObject, PickleScan, Storage, StoredTensor

_MAX_TEXT_LENGTH = 4096
_MAX_NAMES, _MAX_NAME_LENGTH = 100, 200


def max_operations(file_size: int) -> int:
    """Return the number of operations that the pickle of a checkpoint may have.

    PyTorch needs about 25 for a tensor. An operation makes an object of about 100 bytes, so that all objects need at
    most three times the file's size, or 5 MB for small files.
    """
    return min(50_000 + file_size // 40, 1_000_000)


def unpickle(file: IO[bytes], scan: PickleScan, limit: int) -> Any:
    """Read one pickle from the current position of ``file``, leaving it just after.

    Args:
        file: The file to read.
        scan: Receives the storages and the ignored names.
        limit: The largest number of operations.

    Raises:
        BrokenCheckpoint: If the pickle has more operations, or one that no checkpoint has.
        ValueError, IndexError, KeyError, AttributeError, TypeError: If the pickle is damaged.
    """
    machine = _Machine(scan)
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count >= limit:
            raise BrokenCheckpoint(f"its pickle has more than {limit:,} operations, too many for a file of its size")
        if operation.name == "STOP":
            break
        machine.do(operation.name, argument)
    return machine.stack.pop()


# Operations that push their argument onto the stack.
_VALUE_NAMES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_VALUES = frozenset(_VALUE_NAMES.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Operations that replace the last few objects on the stack by one.
_JOINING: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "TUPLE1": (1, tuple),
    "TUPLE2": (2, tuple),
    "TUPLE3": (3, tuple),
    "NEWOBJ": (2, lambda _: OpaqueObject()),
    "NEWOBJ_EX": (3, lambda _: OpaqueObject()),
}


class _Machine:
    """The stack machine of pickle protocols 0 to 5."""

    def __init__(self, scan: PickleScan):
        self.scan = scan
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, operation: str, argument: Any) -> None:
        if operation in _VALUES:
            self.stack.append(_limit_size(argument))
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
            raise BrokenCheckpoint("damaged: its pickle appends to an object that is not a list")

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
                # Hashing a tuple visits all its items, and a few bytes can make that endless.
                if isinstance(key, (tuple, list, dict)):
                    raise BrokenCheckpoint(f"a {type(key).__name__} is the key of a dictionary, which is not supported")
                target[key] = value
        elif not isinstance(target, OpaqueObject):
            raise BrokenCheckpoint("damaged: its pickle sets items of an object that is not a dictionary")

    def do_empty_set(self, _: Any) -> None:
        self.stack.append(OpaqueObject())

    def do_additems(self, _: Any) -> None:
        self.from_mark()

    def do_frozenset(self, _: Any) -> None:
        self.from_mark()
        self.do_empty_set(_)

    def do_global(self, text: str) -> None:
        self.push_name(*text.split(" ", 1))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(module, name)

    def push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise BrokenCheckpoint("damaged: its pickle names a class or function by something other than text")
        full_name = Name(module, name)
        ignored = self.scan.ignored
        if full_name not in _CALLS and full_name not in _STORAGE_NAMES and len(ignored) < _MAX_NAMES:
            ignored.add(f"{module[:_MAX_NAME_LENGTH]}.{name[:_MAX_NAME_LENGTH]}")
        self.stack.append(full_name)

    def do_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        call = _CALLS.get(function) if isinstance(function, Name) else None
        # A call copies its arguments, and a file could use the same long list for any number of calls.
        if call is not None and (not isinstance(arguments, tuple) or len(arguments) > 16):
            raise BrokenCheckpoint("damaged: its pickle calls a function with malformed arguments")
        self.stack.append(OpaqueObject() if call is None else call(*arguments))

    def do_obj(self, _: Any) -> None:
        self.from_mark()
        self.stack.append(OpaqueObject())

    def do_inst(self, text: str) -> None:
        self.do_obj(None)
        self.do_global(text)
        self.stack.pop()

    def do_build(self, _: Any) -> None:
        self.stack.pop()  # attributes for the object below it, which no object here needs

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.find_storage(self.stack.pop()))

    def find_storage(self, identity: Any) -> Storage:
        """Return the storage of ('storage', class, key, location, count[, view metadata of the legacy format])."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise BrokenCheckpoint("refers to a persistent object that is not a tensor storage")
        kind, key, count = identity[1], identity[2], identity[4]
        if not isinstance(key, str) or not _is_count(count):
            raise BrokenCheckpoint("damaged: a tensor storage has an invalid name or size")
        if len(identity) == 6 and identity[5] is not None:
            raise BrokenCheckpoint("written by PyTorch before 0.4 (storage views); save it again with a newer version")
        if not isinstance(kind, Name) or kind not in _STORAGE_NAMES:
            raise BrokenCheckpoint(f"has tensors of an unsupported type; supported are {', '.join(STORAGE_CLASSES)}")
        storage = self.scan.storages.setdefault(key, Storage(kind.name, key, count))
        if (storage.kind, storage.count) != (kind.name, count):
            raise BrokenCheckpoint(f"damaged: tensor storage {key} has two types or sizes")
        return storage


def _limit_size(value: Any) -> Any:
    """Return a value if it is small enough for a name, a shape or a setting, else a placeholder."""
    too_large = (isinstance(value, int) and value.bit_length() > 64) or (
        isinstance(value, (str, bytes, bytearray)) and len(value) > _MAX_TEXT_LENGTH
    )
    return OpaqueObject() if too_large else value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _rebuild_ordered_dict(*arguments: Any) -> dict:
    # torch.save sets the items afterwards, one operation each. A file could ask for any number of copies.
    if arguments:
        raise BrokenCheckpoint(
            "has an OrderedDict that is built from a list; save it again with PyTorch under Python 3"
        )
    return {}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    valid_types = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if (
        not valid_types
        or len(shape) != len(strides)
        or len(shape) > 16
        or not all(map(_is_count, (offset, *shape, *strides)))
    ):
        raise BrokenCheckpoint("damaged: a tensor has an invalid storage, shape or strides")
    return StoredTensor(storage, offset, shape, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_CALLS: dict[Name, Callable[..., Any]] = {
    Name("collections", "OrderedDict"): _rebuild_ordered_dict,
    Name("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Name("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
_STORAGE_NAMES = frozenset(Name("torch", name) for name in STORAGE_CLASSES)
