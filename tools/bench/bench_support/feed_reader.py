"""Feeds for onnxruntime's own quantizer and calibrators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader


class FeedReader(CalibrationDataReader):
    """Hands out feeds (an array per input name) one by one, in order, once."""

    def __init__(self, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next feed; None after the last one."""
        feed = next(self._left, None)
        return None if feed is None else dict(feed)
