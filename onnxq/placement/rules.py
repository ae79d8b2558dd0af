"""The rules of Q/DQ placement, documented once: which nodes run in integers, and which tensors that takes.

`plan` applies them to a float graph, `check` holds what stands in a QDQ model against them. Code cites them by number;
those that decide about nodes have a name too, carried by each Decision.

Which nodes, in the order in which they are asked; the first that applies decides (classify.py):

N0 UNKNOWN       what depends on an operator that onnxruntime does not know is left in float: it cannot be calibrated
N1 UNIT          a normalization in elementary operators is one operator, and so is a function of one tensor where the
                 target looks codes up: its last node stands for all
N2 PROFILE       the profile has the operator quantized, passthrough or in float; what it does not name is left in float
N3 USER          the user left the node in float
N4 OP_TYPES      the user asked for other operator types
N5 INNER         what the profile quantizes only inside a model is left in float with no layer downstream
N6 MOVER         an operator that moves values on the target, but computes in this node, is left in float
N7 MATMUL_BIAS   an Add of one constant per channel to a MatMul is fused, where the profile says so
N8 COUNTED       masks and positions computed from integers are left in float (patterns/attention.py)
N9 SCORES        what only feeds a Softmax is left in float where the target computes Softmax in float
N10 OPERANDS     types, constants and number of the operands must be such that the target quantizes it (fitness.py)
N11 SCHEME       graph scheme 1 leaves sums of activations in float, concat = "float" leaves Concat to the target
N12 ACTIVATION   what runs inside the layer upstream is fused with it (fusion.py)
N13 UNUSED       what moves values is left in float where nothing downstream is quantized (demand.py)
N14 BODY         nodes in the bodies of If, Loop and Scan are left in float: their tensors cannot be observed

Which tensors (demand.py; formats.py for T5 to T7, residual.py for T8):

T1  Every data input of a quantized node is a quantized edge: its tensor gets Q/DQ, this reader reads the result.
T2  An elementwise sum of two activations follows the profile's graph scheme: 1 none, 2 exactly one input, 3 all. Under
    scheme 2 the residual layer's output enters directly: of the inputs that come straight from a Conv, Gemm or MatMul
    nothing else reads, the one with most layers upstream (among equals the last in node order). The other input, the
    shortcut, is quantized.
T3  A node with output = "always" has Q/DQ after it, downstream of its fused activation, and every reader reads that;
    but not where its only reader is a sum that takes it directly (T2).
T4  A passthrough whose output must be quantized passes the demand to its input, with one scale for both sides, if the
    profile ties passthroughs. Concat likewise: "shared" ties, "per-input" does not.
T5  A tensor is quantized once: the widest width among its readers, one scale, one Q/DQ.
T6  What lies upstream of the first or downstream of the last layer has the width of the ends, like those layers.
T7  Where the profile says all_readers, every reader of a quantized tensor reads the dequantized one,
    and a graph output is that too.
T8  Where the profile keeps residuals in int16 or int32, sums, pools and Concats read what layers and each other make as
    it is, in wide integers, through what moves values; only others read it quantized (HAWQ-V3, eqs. 9 and 10). "int16"
    has Q/DQ of 16 bits after it, but for accumulators that enter a sum directly. For a stream of such tensors with a
    layer below 8 bits beside it; at 8 bits T2 costs less time and as good as no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import onnx_graphsurgeon as gs

from onnxq.graph.match import MatchFailure

Action = Literal["quantized", "passthrough", "fused", "float"]


class Rule(Enum):
    """What decided about a node; the value is its number above."""

    UNKNOWN = "N0"
    UNIT = "N1"
    PROFILE = "N2"
    USER = "N3"
    OP_TYPES = "N4"
    INNER = "N5"
    MOVER = "N6"
    MATMUL_BIAS = "N7"
    COUNTED = "N8"
    SCORES = "N9"
    OPERANDS = "N10"
    SCHEME = "N11"
    ACTIVATION = "N12"
    UNUSED = "N13"
    BODY = "N14"


@dataclass(frozen=True)
class Decision:
    """What becomes of one node. rule: what decided. reason: a clause about a node that is left in float, else ""."""

    node: gs.Node
    action: Action
    rule: Rule
    reason: str = ""

    @property
    def failure(self) -> MatchFailure | None:
        """The node and the reason, where there is one."""
        return MatchFailure(self.reason, self.node.name) if self.reason else None
