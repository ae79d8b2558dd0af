"""Maps and sets keyed by which object it is: onnx-graphsurgeon compares tensors by name and nodes by content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, MutableSet
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class IdentityMap(MutableMapping[K, V]):
    """A dict keyed by the identity of its keys, which it keeps alive; in insertion order."""

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        self._items: dict[int, tuple[K, V]] = {id(key): (key, value) for key, value in items}

    def __getitem__(self, key: K) -> V:
        return self._items[id(key)][1]

    def __setitem__(self, key: K, value: V) -> None:
        self._items[id(key)] = (key, value)

    def __delitem__(self, key: K) -> None:
        del self._items[id(key)]

    def __contains__(self, key: object) -> bool:
        return id(key) in self._items

    def __iter__(self) -> Iterator[K]:
        return (key for key, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"IdentityMap({list(self.items())!r})"


class IdentitySet(MutableSet[K]):
    """A set of objects by their identity, which it keeps alive; in insertion order."""

    def __init__(self, items: Iterable[K] = ()) -> None:
        self._items: dict[int, K] = {id(item): item for item in items}

    def __contains__(self, item: object) -> bool:
        return id(item) in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: K) -> None:
        """Add the object; no change when it is there already."""
        self._items[id(value)] = value

    def discard(self, value: K) -> None:
        """Remove the object; no change when it is not there."""
        self._items.pop(id(value), None)

    def __repr__(self) -> str:
        return f"IdentitySet({list(self)!r})"
