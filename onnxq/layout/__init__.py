"""Which order of dimensions each tensor is kept in: rules for moving Transposes through operators, and the choice.

perms            permutations
flip             what a rule proposes, and what rules share
rules            the rule of each operator: standard, reshape (ONNX's) and own (com.onnxq's)
copies           the graph as values with their transposed copies, and what a copy costs
choice, mincut   which operators to compute transposed
rewrite          carrying out a choice
"""
