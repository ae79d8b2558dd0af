"""What tools/fuzz_models.py is made of: models to start from, mutations, commands that read them, workers, findings."""
