"""Measuring the effect of quantization.

accuracy: a model on samples, and against the float model. compare: activation by activation. layerwise: an integer
model against its QDQ model. consistency: optimized against unoptimized. pass_equality: before and after a pass.
evaluation, comparison, verification: the results as data.
"""
