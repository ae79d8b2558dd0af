"""Lowering Q/DQ to integer operators, operator by operator (passes/lower_dyadic.py runs it).

graph        the whole graph, node by node
ledger       which integers represent each float tensor while a graph is lowered, and why a node stays float
emitter      new nodes and tensors, each at the position of the node that it is lowered from
integers     an integer tensor: its scale, zero point, type and limits; likewise weights and codes
downstream   what follows an operator, up to the next QuantizeLinear
output       what an operator produces: the codes of the downstream QuantizeLinear, or a wide tensor if there is none
anchor       DequantizeLinears that onnxruntime would move and then reject, written such that they stay
rescale      ratios of scales to multipliers and shifts, with the form that was used
conv, transposed, linear, arithmetic, concat, pooling, tables, leaky, normalization, passthrough, requantize
             one module per family of operators, each with its HANDLERS, which `handlers` finds by file name
layers, windows, nhwc, movers
             shared by those
"""
