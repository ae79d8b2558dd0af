"""The demo model as train_demo.py makes it: the network in torch, and its ONNX graph."""
