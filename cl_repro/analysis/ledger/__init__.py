"""Every published number with ours beside it."""
