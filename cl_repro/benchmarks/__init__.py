"""Benchmarks: one file per family, each with a factory that a conf/benchmark/*.yaml names."""
