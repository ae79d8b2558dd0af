"""What several nodes mean together: linear layers, normalizations, activations, attention, non-negative tensors.

linear_layers    Conv, Gemm, MatMul with their bias, and folding a x + b into them
normalization    LayerNormalization and RMSNormalization spelled out
activations      functions of one tensor spelled out; composites: those two as units of placement
attention        scores, masks and positions around a Softmax
nonnegative      tensors without values below 0
resampling       when a Resize does more than move values
"""
