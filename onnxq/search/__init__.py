"""Choosing bit widths: sensitivities, MixQuant, the integer linear program, partial quantization."""
