"""Multi-node patterns: linear layers, normalizations, activations, attention, non-negative tensors.

linear_layers    Conv, Gemm, MatMul with their bias, and folding a x + b into them
normalization    decomposed LayerNormalization and RMSNormalization
activations      decomposed functions of one tensor
composites       decomposed normalizations and functions as units of placement
attention        scores, masks and positions around a Softmax
nonnegative      tensors without values below 0
resampling       when a Resize does more than move values
"""
