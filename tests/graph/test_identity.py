"""Identity maps and sets: equal objects are kept apart, and what is kept is kept alive."""

from __future__ import annotations

import gc
import weakref

from onnxq.graph.identity import IdentityMap, IdentitySet


class _Same:
    """Objects that are all equal and that cannot be hashed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same)

    __hash__ = None  # type: ignore[assignment]


def test_a_map_keeps_equal_keys_apart() -> None:
    one, two, absent = _Same(), _Same(), _Same()
    found = IdentityMap([(one, 1), (two, 2)])
    found[one] = 3
    assert (found[one], found[two], found.get(absent)) == (3, 2, None)
    assert [found[k] for k in found] == [3, 2]
    del found[one]
    assert one not in found and two in found and len(found) == 1


def test_a_set_keeps_equal_items_apart() -> None:
    one, two, absent = _Same(), _Same(), _Same()
    found = IdentitySet([one])
    found.add(two)
    found.add(one)
    assert one in found and two in found and absent not in found and len(found) == 2
    found.discard(one)
    found.discard(absent)
    assert [item is two for item in found] == [True]
    assert len(found | IdentitySet([absent])) == 2


def test_keys_are_kept_alive() -> None:
    key = _Same()
    alive, found = weakref.ref(key), IdentitySet([key])
    del key
    gc.collect()
    assert alive() is not None and len(found) == 1
