"""From Q/DQ to integers, operator by operator (passes/lower_dyadic.py runs it).

graph        the whole graph, node by node
ledger       which integers stand for each float tensor while a graph is lowered, and why a node stays float
emitter      new nodes and tensors, each at the place of the node that it comes from
integers     an integer tensor: its scale, zero point, type and limits; the same of weights and of codes
downstream   what stands after an operator, up to the next QuantizeLinear
output       what an operator makes: the codes of the downstream QuantizeLinear, or a wide tensor where there is none
rescale      ratios of scales to multipliers and shifts, with the form that was used
conv, transposed, linear, arithmetic, concat, pooling, tables, leaky, normalization, passthrough, requantize
             one module per family of operators, each with its HANDLERS, which `handlers` finds by file name
layers, windows, nhwc, movers
             what those share
"""
