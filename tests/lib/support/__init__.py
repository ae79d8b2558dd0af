"""What the tests share.

`build` makes models and feeds from ONNX text, `prove` compares and proves, `cases` lists models, graphs and operator
nodes. `runs`, `insertion`, `command` and `kernel_runs` execute what is tested; `derivatives` are exact gradients.
`findings`, `placements`, `cards`, `loops` and `small_net` are what the tests of check, placement, cards, the NumPy
operators and insert-qdq share.
"""
