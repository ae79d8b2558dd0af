"""Where a profile wants Q/DQ in a graph, and in which format.

rules                       every rule, documented once, and the decision that one makes about a node
planner                     `plan`, from the graph to a placement; plan has what it says, cache keeps it
facts, classify, fusion, demand, formats, fitness
                            its steps: analysis, nodes, what runs inside layers, tensors, number formats
insertion, layer_weights    writing a placement into a graph; weights and biases of layers
settings                    what the user asks for
"""
