"""Ranges of activations: statistics counted while the float model runs, and the choosers that turn them into ranges."""
