"""An ONNX model as a graph: reading, walking, matching, shapes, writing, and Q/DQ as found in files."""
