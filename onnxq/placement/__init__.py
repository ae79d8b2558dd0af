"""Where a profile wants Q/DQ in a graph, and in which format."""
