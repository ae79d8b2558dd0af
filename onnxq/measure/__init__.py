"""What quantization did: accuracy, tensors compared, layer-wise verification, consistency."""
