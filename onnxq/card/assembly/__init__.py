"""Making a card: one module per section, each a function of the model and of what the run left."""
