"""Memory layout: rules for moving Transposes through operators, and the choice of each tensor's dimension order.

perms            permutations
flip             what a rule returns, and helpers shared by rules
rules            the rule of each operator: standard, reshape (ONNX's) and own (com.onnxq's)
copies           the graph as values with their transposed copies, and the cost of a copy
choice, mincut   which operators to compute transposed
rewrite          applies a choice to the graph
"""
