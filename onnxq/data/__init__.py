"""Where calibration and evaluation samples come from (see onnxq.data.source)."""
