"""Objects in the pickle of a PyTorch checkpoint: names, storages, and tensors that view them."""

from __future__ import annotations

from dataclasses import dataclass, field

_ELEMENTS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
STORAGE_CLASSES = tuple(f"{element}Storage" for element in _ELEMENTS)


class OpaqueObject:
    """Placeholder for an object that is not rebuilt, or for a value that is too large to be useful."""

    __slots__ = ()


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers elsewhere in the file: ``count`` elements of the storage class ``kind``."""

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
    """Findings in the pickles of one file.

    Attributes:
        storages: Tensor storages by key.
        ignored: Dotted names that were neither imported nor called.
    """

    storages: dict[str, Storage] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
