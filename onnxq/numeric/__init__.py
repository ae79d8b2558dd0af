"""The arithmetic of quantization: NumPy only, no ONNX and no graph (docs/arithmetic.md)."""
