"""Accuracy against lambda: curves, rises, pairs, ways of choosing; figures and tables."""
