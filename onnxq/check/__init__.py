"""Pre-flight: what a target would reject in a model or leave in float, and the fix.

target                      `check` of a model and a profile
float_model                 a float model: its placement, explained
qdq_model                   a model with Q/DQ: formats, and against_plan, what stands elsewhere than planned
integer_only                float operators left in an integer-only model
findings, fixes             what a check reports
"""
