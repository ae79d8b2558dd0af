"""Assembling a card: one module per section, each a function of the model and the records of the run."""
