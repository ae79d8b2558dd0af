"""The `onnxq` command: one module per subcommand, loaded on demand."""
