"""Maps and sets keyed by object identity: onnx-graphsurgeon compares tensors by name and nodes by content."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, MutableMapping, MutableSet
from typing import Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class IdentityMap(MutableMapping[K, V]):
    """A dict keyed by object identity, in insertion order; it keeps its keys alive."""

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        self._items: dict[int, tuple[K, V]] = {id(key): (key, value) for key, value in items}

    def __getitem__(self, key: K) -> V:
        return self._items[id(key)][1]

    def __setitem__(self, key: K, value: V) -> None:
        self._items[id(key)] = (key, value)

    def __delitem__(self, key: K) -> None:
        del self._items[id(key)]

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: V | T) -> V | T: ...

    def get(self, key: K, default: Any = None) -> Any:
        """The value of the key, or the default: without an exception, unlike the mixin's."""
        item = self._items.get(id(key))
        return default if item is None else item[1]

    def items(self) -> ItemsView[K, V]:
        """(key, value) of each, without a search for every key."""
        return _Items(self)

    def __contains__(self, key: object) -> bool:
        return id(key) in self._items

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"IdentityMap({list(self.items())!r})"


class _Items(ItemsView[K, V]):
    _mapping: IdentityMap[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(self._mapping._items.values())


class IdentitySet(MutableSet[K]):
    """A set of objects by identity, in insertion order; it keeps them alive."""

    def __init__(self, items: Iterable[K] = ()) -> None:
        self._items: dict[int, K] = {id(item): item for item in items}

    def __contains__(self, item: object) -> bool:
        return id(item) in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: K) -> None:
        """Add the object if it is not present."""
        self._items[id(value)] = value

    def discard(self, value: K) -> None:
        """Remove the object if it is present."""
        self._items.pop(id(value), None)

    def __repr__(self) -> str:
        return f"IdentitySet({list(self)!r})"
