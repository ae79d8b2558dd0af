"""What several nodes mean together: linear layers, normalizations, activations, attention, non-negative tensors."""
