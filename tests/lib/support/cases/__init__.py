"""Models, graphs and operator nodes that several tests go through."""
