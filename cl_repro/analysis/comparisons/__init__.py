"""Methods beside each other, and beside published means; figures and tables."""
