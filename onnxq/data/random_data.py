"""Random samples, for trying a model without data. The card marks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnxq.data.base import DataSource, Sample, make_sample
from onnxq.data.spec import InputSpec, apply_shapes, format_shape
from onnxq.errors import ConfigError

IMAGE_SIDE = 224


class RandomData(DataSource):
    """N seeded samples: standard normal floats, integers 0 or 1 (valid in any lookup table with two or more rows),
    uint8 0 to 255, booleans with probability 1/2. Sample i depends only on seed and i.

    Free first axes are 1. Other free axes get their length from `shapes`; height and width of an apparent image (rank
    4, 1 or 3 channels) default to 224, which `notes` records. Raises ConfigError for other free axes. A first axis
    given in `shapes` produces batched feeds of that length.
    """

    kind = "random"

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        samples: int,
        seed: int = 0,
        shapes: Mapping[str, Sequence[int]] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(inputs, limit)
        if samples < 1:
            raise ConfigError(f"the number of random samples must be 1 or more, not {samples}")
        self.seed = seed
        self._samples = samples
        given = apply_shapes(inputs, shapes or {})
        self.shapes = {spec.name: self._concrete(spec) for spec in given}
        if self.plan.fixed is not None:
            self.shapes = {
                name: (1, *dims[1:]) if name in self.plan.carriers else dims for name, dims in self.shapes.items()
            }
        for spec in inputs:
            if spec.dtype.kind not in "fiub" and spec.dtype.name != "bfloat16":
                raise ConfigError(f"no random data for input {spec.name!r} of type {spec.dtype.name}; give real data")
        self._per_feed = next(self._feeds(0)).count

    @property
    def labels_available(self) -> bool:
        return False

    def describe(self) -> dict[str, Any]:
        shapes = {name: list(dims) for name, dims in self.shapes.items()}
        return super().describe() | {"seed": self.seed, "shapes": shapes}

    def _total(self) -> int:
        return self._samples * self._per_feed

    def _read(self, start: int) -> Iterator[Sample]:
        feed, inside = divmod(start, self._per_feed) if self._per_feed else (0, 0)
        for sample in self._feeds(feed):
            yield sample.part(inside, sample.count, self.plan) if inside else sample
            inside = 0

    def _feeds(self, start: int) -> Iterator[Sample]:
        mergeable = all(self.shapes[name][0] == 1 for name in self.plan.carriers)
        for i in range(start, self._samples):
            rng = np.random.default_rng([self.seed, i])
            feed = {spec.name: _draw(rng, self.shapes[spec.name], spec.dtype) for spec in self.inputs}
            yield make_sample(feed, None, self.plan, "random", f"random[{i}]", mergeable=mergeable)

    def _concrete(self, spec: InputSpec) -> tuple[int, ...]:
        if spec.shape is None:
            raise ConfigError(f"input {spec.name!r} has no known rank; give its shape: {_how(spec.name)}")
        dims = [1 if i == 0 and not isinstance(d, int) else d for i, d in enumerate(spec.shape)]
        free = [i for i, d in enumerate(dims) if not isinstance(d, int)]
        image = (
            (2, 3) if len(dims) == 4 and dims[1] in (1, 3) else (1, 2) if len(dims) == 4 and dims[3] in (1, 3) else ()
        )
        if free and set(free) <= set(image):
            for i in free:
                dims[i] = IMAGE_SIDE
            self.notes += (
                f"input {spec.name!r}: unknown height or width assumed to be {IMAGE_SIDE}; {_how(spec.name)} sets it",
            )
        elif free:
            raise ConfigError(
                f"input {spec.name!r} has shape {format_shape(spec.shape)}: axis {free[0]} is unknown;"
                f" give {_how(spec.name)}"
            )
        return tuple(d for d in dims if isinstance(d, int))


def _how(name: str) -> str:
    return f"--input-shape {name}:DIMS"


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)
