"""Speed and memory of this program, as ratios within one process: what `make bench` measures.

One file per group of rows; each has `rows(setting)`. `measure` times, `reference` is the usual style that the ratios
compare with, `workloads` what is trained, `report` the table and the CSVs. Never part of the tests: time is no test.
"""
