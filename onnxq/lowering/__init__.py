"""From Q/DQ to integers, operator by operator (passes/lower_dyadic.py runs it).

values       what is known of a tensor in integers
work         the graph while it is lowered: who is what, new nodes, reasons
output       where a result goes: to the codes of the QuantizeLinear behind it, or wide where there is none
rescale      ratios of scales to multipliers and shifts, with the form that was used
conv, linear, arithmetic, concat, pooling, tables, passthrough, requantize
             one module a family of operators, each a table of handlers
"""
