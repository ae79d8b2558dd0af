"""Permutations, the cheapest cut, and that the choice is the best one there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.graph import marks
from onnxq.graph.model import load
from onnxq.layout import perms
from onnxq.layout.choice import Choice, Layouts, made_in, price, read_in
from onnxq.layout.copies import Value
from onnxq.layout.mincut import SINK, SOURCE, Network
from support.cases import random_integers

PERMS = st.integers(1, 6).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n))))


@given(PERMS)
def test_permutations_are_numpys(pair):
    first, second = (tuple(p) for p in pair)
    array = np.empty([2 + i for i in range(len(first))])
    assert array.transpose(first).transpose(second).shape == array.transpose(perms.then(first, second)).shape
    assert array.transpose(first).transpose(perms.inverse(first)).shape == array.shape
    assert tuple(perms.permuted(array.shape, first)) == array.transpose(first).shape
    assert perms.is_identity(perms.then(first, perms.inverse(first)))
    assert marks.LAYOUT.parse(marks.LAYOUT.render(first)) == first


@given(st.permutations(range(5)), st.sets(st.integers(0, 4), max_size=4))
def test_dimensions_taken_out_or_of_size_one(perm, gone):
    perm = tuple(perm)
    shape = [1 if i in gone else 2 + i for i in range(5)]
    array = np.arange(np.prod(shape)).reshape(shape)
    left = perms.without(perm, gone)
    small = array.squeeze(tuple(gone)).transpose(left)
    assert np.array_equal(small, array.transpose(perm).squeeze(tuple(i for i, p in enumerate(perm) if p in gone)))
    assert perms.moves_nothing(perm, shape) == np.array_equal(array.transpose(perm).ravel(), array.ravel())


@given(st.permutations(range(4)), st.lists(st.sampled_from([1, 1, 2, 3, "n"]), min_size=4, max_size=4))
def test_a_reshape_that_does_what_a_transpose_does(perm, shape):
    perm = tuple(perm)
    target = perms.reshape_target(perm, shape)
    if target is None:  # something moves, or one constant cannot name the sizes
        assert not perms.moves_nothing(perm, shape) or sum(d == "n" for d in shape) > 1
        return
    assert target.count(-1) <= 1
    for size in (1, 5):
        array = np.arange(np.prod(sizes := [size if d == "n" else d for d in shape])).reshape(sizes)
        assert np.array_equal(
            array.reshape([array.shape[i] if d == 0 else d for i, d in enumerate(target)]), array.transpose(perm)
        )


@pytest.mark.parametrize("text", ["0,2", "1", "0,0,1", "a,b"])
def test_what_is_no_permutation(text):
    with pytest.raises(ValueError, match=r"permutation|invalid literal"):
        marks.LAYOUT.parse(text)


EDGES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), max_size=24)


@given(EDGES)
def test_the_cut_is_the_cheapest(edges):
    """Against every way to divide five nodes; of several cheapest ways the one with the fewest at the sink."""
    names = [SOURCE, 1, 2, 3, 4, 5, SINK]
    edges = [(names[a], names[b], c) for a, b, c in edges if a != b]
    network = Network()
    for tail, head, capacity in edges:
        network.edge(tail, head, capacity)
    found = network.sink_side()

    def cut(sink: set) -> int:
        return sum(c for a, b, c in edges if a not in sink | {SINK} and b in sink | {SINK})

    subsets = [set(s) for n in range(6) for s in itertools.combinations(range(1, 6), n)]
    least = min(cut(s) for s in subsets)
    assert cut(found) == least
    assert len(found) == min(len(s) for s in subsets if cut(s) == least)


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_no_choice_in_a_region_is_better(seed):
    """Every subset of each small region is tried; where a value has three orders, a cut may miss the best."""
    model = load(random_integers.network(seed, 12))
    layouts = Layouts(model.graph)
    for node, given_perm in layouts._seeds():
        region = layouts._grow(node, given_perm, set())
        if not 0 < len(region) <= 8:
            continue
        chosen = layouts._solve(region)
        touched = layouts._touched(region)
        count = any(v.elements() is None for v in touched)

        def total(flipped: set[int], region=region, touched=touched, count=count) -> int:
            return sum(price(v, region, flipped, count) for v in touched)

        best = min(total(set(s)) for n in range(len(region) + 1) for s in itertools.combinations(region, n))
        assert total(chosen) <= total(set())
        if all(len(orders(v, region)) <= 2 for v in touched):
            assert total(chosen) == best


def orders(value: Value, region: Choice) -> set[perms.Perm]:
    """Every order that the value may be made or wanted in."""
    wanted = {p for flipped in ((), region) for p in read_in(value, region, flipped)}
    return wanted | {made_in(value, region, f) for f in ((), region)} | {c.layout for c in value.pinned}
