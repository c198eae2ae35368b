"""What a PyTorch checkpoint's pickle speaks of: names, storages and the tensors that view them."""

from __future__ import annotations

from dataclasses import dataclass, field

_ELEMENTS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
STORAGES = tuple(f"{element}Storage" for element in _ELEMENTS)


class OpaqueObject:
    """An object of which nothing is known here, or a value too large to be of use."""

    __slots__ = ()


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers stored elsewhere in the file: ``count`` elements of the storage class ``kind``."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A strided view of a storage; ``offset`` and ``strides`` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class PickleScan:
    """What the pickles of one file name: the storages by key, and what was neither imported nor called."""

    storages: dict[str, Storage] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
