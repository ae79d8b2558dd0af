"""What the programs of this folder share.

`references` lists the models of ../shared and their data; `networks`, `encoder` and `kernel_models` generate models.
`calibration` collects onnxq's statistics, `feed_reader` feeds onnxruntime's own quantizer, `search_accuracy` evaluates
widths that a search chose, `report` describes the machine and prints tables.
"""
