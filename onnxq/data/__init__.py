"""Sources of calibration and evaluation samples (see onnxq.data.source)."""
