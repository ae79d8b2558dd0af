"""Choosing widths in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from onnxq.cost.prepared import Source
from onnxq.data.options import DataOptions, RunOptions, SampleKeywords, data_options
from onnxq.errors import ConfigError
from onnxq.measure.proof import ProofKeywords, ProofOptions
from onnxq.placement.settings import DEFAULT_CALIBRATION
from onnxq.records import check_keywords, refined
from onnxq.reporting import Reporter
from onnxq.search.inputs import DEFAULT_PROFILE, LimitTexts, SearchInputs
from onnxq.search.method import available, make, require
from onnxq.search.methods.mixquant import MixQuant, Reading
from onnxq.search.methods.partial import Partial
from onnxq.search.product import proven_result
from onnxq.search.result import SearchResult
from onnxq.search.sensitivity import Sensitivity

BITS = 8  # of the layers that partial quantization does not leave in float


def search_bits(
    source: Source,
    method: str,
    *,
    sensitivity: Sensitivity | str | Path | None = None,
    bits: Sequence[int] | None = None,
    limits: LimitTexts | None = None,
    qem: float | None = None,
    quantizer: str = MixQuant.quantizer,
    reading: Reading = "lowest",
    data: Any = None,
    run: RunOptions | None = None,
    reporter: Reporter | None = None,
    proving: ProofOptions | None = None,
    **options: Any,
) -> SearchResult:
    """Choose the width of every layer.

    source: float model. method: a search method that needs no data: "mixquant", "ilp". sensitivity: for "ilp", of the
    same model. bits: weight widths to choose from; None is the method's default, 2 to 8 for mixquant, 4 and 8 for ilp.
    limits: {"size" | "bops" | "latency" | "peak" | "largest" | "average": "3MB" or "60%" of int8, or several}.
    qem, quantizer, reading: of mixquant, ignored by other methods; with limits and no qem, the least QEM that meets
    them. options: others of the method; and of the space: profile, activation_bits, first_last_bits, fixed, ties,
    tie_blocks, exclude, latency, shapes (make_space). data: samples, or DataOptions, with which the product, the model
    that onnxq.quantize makes of the result, is made and proven as quantize does; without data it is not. run, reporter:
    of that. proving: how; proof, strict and min_sqnr are also options.
    Raises ProofError for a product that fails its proof if it must not, and ConfigError for limits that cannot be met
    (naming the limit), for an option of another method, and for anything that contradicts the model.
    """
    methods = {name: cls for name, cls in available().items() if "data" not in cls.needs}
    if method not in methods:
        raise ConfigError(
            f"method {method!r}: choose {' or '.join(methods)}; partial quantization is search_partial, with data"
        )
    cls = methods[method]
    require(cls, {"sensitivity": sensitivity, "limits": limits, "latency": options.get("latency")})
    samples = data if data is None or isinstance(data, DataOptions) else DataOptions(data)
    proving = refined(proving or ProofOptions(), options)
    options = {name: value for name, value in options.items() if name not in ProofKeywords.__annotations__}
    own = {"qem": qem, "quantizer": quantizer, "reading": reading} if cls is MixQuant else {}
    chosen, space = make(cls, own | options)
    inputs = SearchInputs(
        source,
        cls.widths if bits is None else bits,
        limits or {},
        sensitivity,
        space,
        samples,
        run or RunOptions(),
        (reporter or Reporter()).say,
        proving,
    )
    result = proven_result(chosen.run(inputs), chosen, inputs)
    for _table in chosen.extras(inputs, [result]):
        pass  # extras() also writes files
    return result


class PartialKeywords(SampleKeywords, ProofKeywords, total=False):
    """Single options that search_partial accepts as keywords."""

    shapes: Mapping[str, Sequence[int]] | None
    threads: int
    batch_size: int | None
    say: Callable[[str], None]


def search_partial(
    source: Source,
    data: Any,
    sensitivity: Sensitivity | str | Path | None = None,
    max_drop: float = Partial.max_drop,
    *,
    eval_data: Any = None,
    profile: str = DEFAULT_PROFILE,
    bits: int = BITS,
    calibration: str = DEFAULT_CALIBRATION,
    first_last_bits: int | None = None,
    fixed: Mapping[str, int] | None = None,
    ties: Iterable[Sequence[str]] = (),
    tie_blocks: bool = False,
    exclude: Sequence[str] = (),
    run: RunOptions | None = None,
    reporter: Reporter | None = None,
    proving: ProofOptions | None = None,
    **keywords: Unpack[PartialKeywords],
) -> SearchResult:
    """Leave as few of the most sensitive layers in float as possible, such that the model loses at most `max_drop`.

    data: samples to calibrate on, or DataOptions; eval_data: to evaluate on, the same by default. sensitivity: of the
    same model, at `bits`, by which layers are ranked; None measures that of whole layers, weights and inputs.
    max_drop: of top-1 where the data has labels, else of the agreement with the float model; 0.01 is one point.
    profile, calibration, run: as for onnxq.quantize. reporter: receives a line per trial. proving: how the product, the
    model that onnxq.quantize makes of the result, is proven; the trials are not. Keywords take precedence over the
    objects: preprocess, limit (applies to calibration) and shapes of DataOptions, threads and batch_size of RunOptions,
    say of Reporter, and all of ProofOptions.
    first_last_bits, fixed, ties, tie_blocks, exclude: as in make_space; fixed layers are always quantized, tied ones
    stay in float together.
    Raises ProofError for a product that fails its proof if it must not, and ConfigError for sensitivities of another
    model or without a layer or the width, or if the drop is too large even with every layer in float.
    """
    check_keywords("search_partial", keywords, PartialKeywords)
    space = {
        "first_last_bits": first_last_bits,
        "fixed": fixed,
        "ties": ties,
        "tie_blocks": tie_blocks,
        "exclude": exclude,
    }
    inputs = SearchInputs(
        source,
        (bits,),
        sensitivity=sensitivity,
        options={"profile": profile, **space},
        samples=data_options(data, keywords),
        run=refined(run or RunOptions(), keywords),
        say=refined(reporter or Reporter(), keywords).say,
        proving=refined(proving or ProofOptions(), keywords),
    )
    method = Partial(max_drop, eval_data, calibration)
    return proven_result(method.run(inputs), method, inputs)


__all__ = ["search_bits", "search_partial"]
