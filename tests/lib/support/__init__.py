"""What the tests share.

`build` makes models and feeds from ONNX text, `prove` compares and proves, `cases` lists models, graphs and operator
nodes. `runs`, `insertion`, `command` and `kernel_runs` execute what is tested; `derivatives` are exact gradients.
"""
