"""The graph passes, one file each, found by file name."""
