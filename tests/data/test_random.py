"""Random data, and the options of open_data that every kind shares."""

import numpy as np
import pytest

from onnxq.data.source import InputSpec, batches, open_data, skip
from onnxq.errors import ConfigError, DataError

F32, I64, U8, BOOL = (np.dtype(t) for t in ("float32", "int64", "uint8", "bool"))
IMAGE = InputSpec("x", ("N", 3, 8, 8), F32)


def test_one_sample_each_and_reproducible() -> None:
    source = open_data(None, [IMAGE], random=5, seed=3)
    assert (source.kind, source.count(), source.labels_available) == ("random", 5, False)
    first = [s.feeds["x"] for s in source.samples()]
    assert all(a.shape == (1, 3, 8, 8) and a.dtype == F32 for a in first)
    for start in range(6):
        again = [s.feeds["x"] for s in open_data(None, [IMAGE], random=5, seed=3).samples(start)]
        np.testing.assert_array_equal([*first[:start], *again], first)
    assert not np.array_equal(next(open_data(None, [IMAGE], random=1, seed=4).samples()).feeds["x"], first[0])
    assert [b.count for b in batches(source, [IMAGE], 2)] == [2, 2, 1]


def test_distributions() -> None:
    inputs = [
        InputSpec("f", ("N", 10000), F32),
        InputSpec("h", ("N", 100), np.dtype(np.float16)),
        InputSpec("i", ("N", 100), I64),
        InputSpec("u", ("N", 10000), U8),
        InputSpec("b", ("N", 100), BOOL),
        InputSpec("s", (), F32),
        InputSpec("z", ("N", 0), F32),
    ]
    feeds = next(open_data(None, inputs, random=1).samples()).feeds
    assert abs(feeds["f"].mean()) < 0.05
    assert abs(feeds["f"].std() - 1) < 0.05
    assert {k: v.dtype for k, v in feeds.items()} == {spec.name: spec.dtype for spec in inputs}
    assert set(feeds["i"].ravel().tolist()) == {0, 1}
    assert (feeds["u"].min(), feeds["u"].max()) == (0, 255)
    assert set(feeds["b"].ravel().tolist()) == {False, True}
    assert feeds["s"].shape == ()
    assert feeds["z"].shape == (1, 0)


def test_a_fixed_batch_counts_samples_not_feeds() -> None:
    inputs = [InputSpec("x", (4, 3), F32)]
    source = open_data(None, inputs, random=6)
    assert source.count() == 6
    assert [(b.count, b.feeds["x"].shape) for b in batches(source, inputs, None)] == [(4, (4, 3)), (2, (4, 3))]


def test_image_sides_default_to_224_and_say_so() -> None:
    for shape, expected in (
        (("N", 3, "H", "W"), (1, 3, 224, 224)),
        ((None, None, None, 1), (1, 224, 224, 1)),
        ((2, 1, 64, "W"), (1, 1, 64, 224)),
    ):
        source = open_data(None, [InputSpec("x", shape, F32)], random=1)
        assert next(source.samples()).feeds["x"].shape == expected
        assert source.notes == ("input 'x': unknown height or width assumed to be 224; --input-shape x:DIMS sets it",)
    assert open_data(None, [IMAGE], random=1).notes == ()


def test_shapes_are_used_and_described() -> None:
    inputs = [InputSpec("x", ("N", "L"), F32), InputSpec("y", ("N", 4), F32)]
    source = open_data(None, inputs, random=3, shapes={"x": (1, 7)})
    assert next(source.samples()).feeds["x"].shape == (1, 7)
    assert source.describe()["shapes"] == {"x": [1, 7], "y": [1, 4]}
    assert source.describe()["seed"] == 0
    assert len(source.describe()["sha256"]) == 64


def test_a_given_first_axis_makes_whole_feeds() -> None:
    inputs = [InputSpec("x", ("N", 4), F32)]
    source = open_data(None, inputs, random=3, shapes={"x": (5, 4)})
    assert source.count() == 15
    assert [b.count for b in batches(source, inputs, 2, start=3)] == [2, 5, 5]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InputSpec("x", ("N", "L"), I64), "'x' has shape NxL: axis 1 is unknown; give --input-shape x:DIMS"),
        (InputSpec("x", ("N", "C", 8, 8), F32), "axis 1 is unknown"),
        (InputSpec("x", ("N", 3, "H"), F32), "axis 2 is unknown"),
        (InputSpec("x", None, F32), "no known rank; give its shape: --input-shape x:DIMS"),
        (InputSpec("x", ("N",), np.dtype(object)), "no random data for input 'x' of type object"),
    ],
)
def test_what_cannot_be_guessed(spec: InputSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_data(None, [spec], random=1)


@pytest.mark.parametrize("count", [0, -1])
def test_counts_must_be_positive(count: int) -> None:
    with pytest.raises(ConfigError, match="random samples must be 1 or more"):
        open_data(None, [IMAGE], random=count)
    with pytest.raises(ConfigError, match="samples to use must be 1 or more"):
        open_data({"x": np.zeros((1, 3, 8, 8))}, [IMAGE], limit=count)


def test_no_data_or_too_much() -> None:
    with pytest.raises(ConfigError, match=r"no data: give samples \(--data\).*--random-data N"):
        open_data(None, [IMAGE])
    with pytest.raises(ConfigError, match="exclude each other"):
        open_data("images", [IMAGE], random=2)


def test_shapes_fix_free_axes_of_real_data() -> None:
    inputs = [InputSpec("x", ("N", "L"), F32)]
    assert len(list(open_data({"x": np.zeros((3, 5))}, inputs, shapes={"x": (1, 5)}).samples())) == 3
    with pytest.raises(DataError, match="axis 1 must be 6"):
        open_data({"x": np.zeros((3, 5))}, inputs, shapes={"x": (1, 6)})
    with pytest.raises(ConfigError, match="'y', which is not an input of the model; its inputs: x"):
        open_data({"x": np.zeros((3, 5))}, inputs, shapes={"y": (1, 6)})


def test_an_open_source_passes_through() -> None:
    source = open_data(None, [IMAGE], random=2)
    assert open_data(source, [IMAGE]) is source
    with pytest.raises(ConfigError, match="do not apply to an open data source"):
        open_data(source, [IMAGE], limit=1)


def test_skip_makes_shards() -> None:
    inputs = [InputSpec("x", ("N", 1), F32)]
    data = {"x": np.arange(7.0)[:, None], "labels": np.arange(7)}
    source = open_data(data, inputs, limit=6)
    shard = skip(source, 2)
    assert (shard.kind, shard.count(), shard.labels_available) == ("arrays", 4, True)
    assert [int(s.feeds["x"][0, 0]) for s in shard.samples()] == [2, 3, 4, 5]
    assert [int(s.feeds["x"][0, 0]) for s in shard.samples(3)] == [5]
    assert shard.describe() == source.describe() | {"first": 2, "samples": 4}
    assert skip(source, 0) is source
    with pytest.raises(DataError, match="there is no sample 6: the data has 6"):
        skip(source, 6)
    with pytest.raises(ConfigError, match="first sample must be number 0 or more"):
        skip(source, -1)
