"""A small model quantized by the passes, with the card of the run."""

from onnxq import pipeline
from onnxq.card import Card, Effort, Made, Provenance, build_card, describe_float
from onnxq.graph.model import Model
from support.build import qdq
from support.insertion import context

NET = """g (float[1,3,8,8] x) => (float[1,10] y)
<float[4,3,3,3] w1, float[4] b1, float[4,4,3,3] w2, float[10,4] w3, float[4] k> {
  [stem] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [relu1] b = Relu(a)
  [block] c = Conv<pads=[1,1,1,1]>(b, w2)
  [skip] s = Add(c, b)
  [relu2] d = Relu(s)
  [pool] e = GlobalAveragePool(d)
  [flat] f = Flatten(e)
  [scale] h = Mul(f, k)
  [soft] p = Softmax(h)
  [head] y = Gemm<transB=1>(p, w3)
}"""
DATA = {"kind": "image folder", "name": "calib", "samples": 200, "labelled": True, "sha256": "ab" * 32}
DATA["preprocess"] = {"scale": 1 / 127.5, "mean": [1.0], "layout": "nchw"}
EVALUATION = {
    "samples": 300,
    "labelled": 300,
    "top1": 0.8833,
    "top1_error": 0.0185,
    "top5": None,
    "data": {"kind": "image folder", "name": "val"},
    "against": {"top1": 0.8867, "agreement": 0.973, "kl": 0.0123, "outputs": {"logits": {"sqnr_db": 22.75}}},
}


def quantized(
    text: str = NET, profile: str = "onnxruntime-cpu", data=None, values=None, seconds: float = 1.5, **settings
) -> tuple[Model, Card]:
    """A small model after the passes, with the card of the run."""
    source = qdq.model(text, opset=21, **(values or {}))
    ctx = context(source, profile, **settings)
    before = describe_float(source)
    passes = pipeline.parse("insert-qdq{calibration=percentile:99.9},fuse-activation-clips")
    reports = pipeline.run(source, passes, ctx)
    assert ctx.placement is not None and ctx.profile is not None and ctx.settings is not None
    card = build_card(
        source,
        before,
        Made(ctx.profile, ctx.settings, ctx.placement, pipeline.print_pipeline(passes), reports),
        Provenance({"samples": 3}, DATA if data is None else data),
        Effort(seconds, 123_000_000, threads=2),
    )
    return source, card
