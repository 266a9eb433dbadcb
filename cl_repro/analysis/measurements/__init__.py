"""Figures and tables of what is measured beside a study."""
