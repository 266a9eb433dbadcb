"""Continual-learning methods: one factory per file, each returning a `Method`, written for one replica."""
