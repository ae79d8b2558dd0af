"""An ONNX model as a graph. Nothing here depends on a profile or a quantization choice.

model, protos, exporting, files    reading and writing models
walk, match, axes, clamps, names   inspecting nodes and tensors, and safe edits
identity                           maps and sets keyed by object identity
shapes, element_types, known_values, topology
                                   what inference adds: shapes, types, values, order
qdq, marks                         Q/DQ as found in files, and onnxq's own node metadata
movement                           which DequantizeLinears onnxruntime moves, and which of those break
refusal, sweep                     how a rewrite refuses, and the graph traversal of a pass
"""
