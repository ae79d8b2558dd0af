"""The product of a search: the model that `quantize --config` makes of its result, proven once."""

from __future__ import annotations

import dataclasses

from onnxq import api
from onnxq.errors import ModelError
from onnxq.graph.model import Model, copy_of
from onnxq.placement.settings import QuantSettings
from onnxq.reporting import Reporter
from onnxq.search.inputs import SearchInputs
from onnxq.search.method import SearchMethod
from onnxq.search.result import SearchResult

NO_DATA = "note: the product is not proven: there is no data to make it with; `onnxq quantize --config` proves it"
ALL_FLOAT = "note: every layer stays in float: there is no product to prove"


def proven_result(result: SearchResult, method: SearchMethod, inputs: SearchInputs) -> SearchResult:
    """The result with the proof of its product, if one is asked for (SearchInputs.proving); findings are said.

    The product is calibrated on the samples, or has the statistics of the method's trials. Raises ProofError for
    findings that are to be errors, and what onnxq.quantize raises.
    """
    proving = inputs.proving
    if proving is None or proving.proof == "none":
        return result
    if inputs.samples is None:
        inputs.say(NO_DATA)
        return result
    source = copy_of(inputs.source) if isinstance(inputs.source, Model) else inputs.source
    try:
        made = api.quantize(
            source,
            inputs.samples,
            profile=inputs.profile,
            settings=QuantSettings(calibration=method.range_chooser, overrides=dict(result.assignment)),
            statistics=inputs.statistics,
            run=dataclasses.replace(inputs.run, resume=None),
            reporter=Reporter(inputs.say),
            proving=proving,
        )
    except ModelError:
        if any(layer.weight_bits is not None for layer in result.layers):
            raise
        inputs.say(ALL_FLOAT)
        return result
    return dataclasses.replace(result, proof=made.card.proof)


__all__ = ["proven_result"]
