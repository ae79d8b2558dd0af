"""Proofs and comparisons: what a pass kept, what lowering rounded, what an operator must compute."""
