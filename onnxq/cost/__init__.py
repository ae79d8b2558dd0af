"""What a model costs: MACs, bytes, bit operations, feature maps, latency."""
