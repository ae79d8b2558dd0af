"""From Q/DQ to integers, operator by operator (passes/lower_dyadic.py runs it).

values       what is known of a tensor in integers
emitter      new nodes and tensors; work: that and who is what while a graph is lowered
output       where a result goes: to the codes of the QuantizeLinear behind it, or wide where there is none
rescale      ratios of scales to multipliers and shifts, with the form that was used
conv, transposed, linear, arithmetic, concat, pooling, tables, leaky, normalization, passthrough, requantize
             one module per family of operators, each with its HANDLERS, which `handlers` finds by file name
graph        the whole graph, node by node
layers, windows, images, movers
             what those share
"""
