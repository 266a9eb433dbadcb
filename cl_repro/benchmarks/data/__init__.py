"""Data sets as numpy arrays, read from files the user has: a run never downloads."""
