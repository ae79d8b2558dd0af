"""An ONNX model as a graph. Nothing here knows a profile or a quantization choice.

model, protos, exporting, files    reading and writing models
walk, match, axes, clamps, names   looking at nodes and tensors, and safe edits
identity                           maps and sets keyed by which object it is
shapes, element_types, known_values, topology
                                   what inference adds: shapes, types, values, order
qdq, marks                         Q/DQ as found in files, and onnxq's own metadata of nodes
refusal, sweep                     how a rewrite refuses, and the walk of a pass
"""
