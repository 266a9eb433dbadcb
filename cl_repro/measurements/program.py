"""A measurement beside a study, on the store of a study: the one way to run any of them.

Cells that are measured at once are computed as a chunk of a study is: they are locked, resumed, tried again, and told
by `status`, and none begins that would not end within `time_budget`. What is killed loses the chunk it was at. Chunks
are measured one after the other in this process, because many of them are timed.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.common.errors import UserError
from cl_repro.common.rules import Rule, require
from cl_repro.records import Row, Store
from cl_repro.records.columns import Table
from cl_repro.study import checks, grid, provenance, status, study
from cl_repro.study.grid import Arm, Cell
from cl_repro.study.jobs import Job
from cl_repro.study.rows import origin
from cl_repro.study.worker import Workshop


class Program(NamedTuple):
    """What is measured of a cell, which is an arm and a seed."""

    script: str  # its name for scripts/measure.py, for the record
    tables: Mapping[str, Table]  # as of `Store`
    key: tuple[str, ...]  # as of `Store`
    arms: Callable[[Sequence[str]], list[Arm]]
    """Of Hydra's overrides, checked without their data; cells of one key are one, of the first of these arms."""
    configs: Callable[[list[Arm]], dict[str, Any]]  # to be recorded, by config_id
    measure: Callable[[Any, Job], dict[str, list[Row]]]
    """(bench, job of the cells of one seed) -> rows by file, of the columns that `Bench.rows` does not know."""
    check: Callable[["Bench", list[Arm], str], None] = lambda bench, arms, device: None  # UserError: not measurable
    one_configuration: bool = False  # a folder holds no other
    size: Callable[["Bench", Job], int] = lambda bench, job: 1  # what `report` adds up to


class Bench(Workshop):
    """A workshop that measures the cells of a program."""

    def __init__(self, program: Program, report: engine.Report = lambda *_: None) -> None:
        """`report` is told about progress."""
        super().__init__(report)
        self.program = program

    def opened(self, folder: Path) -> Store:
        """As of `Workshop`."""
        return Store(folder, self.program.tables, self.program.key)

    @staticmethod
    def parts(job: Job) -> int:
        """Of a chunk: it is measured as a whole."""
        return 1

    def size(self, job: Job) -> int:
        """As the program says."""
        return self.program.size(self, job)

    def rows(self, job: Job) -> dict[str, list[Row]]:
        """Measure cells of one seed. Numbers are written in six digits, and left empty where there is none."""
        arm, began = job.arm, runtime.clock(job.device)
        self.store(job.folder).merge()  # chunks are recorded in the order in which they were measured
        found = self.program.measure(self, job)
        known = named(arm, job.chunk[0].seed) | {"seconds": runtime.clock(job.device) - began} | origin(job, arm.cfg)
        return {
            name: [{column: six_digits((known | row).get(column)) for column in columns} for row in found.get(name, [])]
            for name, columns in self.program.tables.items()
        }


def settings(cfg: dict[str, Any], name: str, made: dict[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """What `benchmark.protocol.<name>` says of a measurement, and what is `made` where it says nothing.

    Raises:
        UserError: a key that has no rule, or a value that breaks its rule.
    """
    given = (cfg["benchmark"].get("protocol") or {}).get(name) or {}
    given = {key: value for key, value in given.items() if not isinstance(value, Mapping)}  # those are of each scale
    for key, value in given.items():
        place = f"benchmark.protocol.{name}.{key}"
        if key not in rules:
            raise UserError(f"{place}: unknown key; allowed: {', '.join(rules)}")
        require(place, value, rules[key])
    return made | given


def named(arm: Arm, seed: int) -> Row:
    """Columns that name a cell, or describe it."""
    names = {group: arm.cfg[group]["name"] for group in ("benchmark", "model", "method")}
    names |= {"fisher": grid.estimator_name(arm.cfg), "run": arm.label, "arm": arm.label, "estimator": arm.label}
    return names | {"config_id": arm.config_id, "seed": seed}


def six_digits(value: Any) -> Any:
    """A number as it is written."""
    return ("" if math.isnan(value) else f"{value:.6g}") if isinstance(value, float) else value


def cells(program: Program, arms: list[Arm]) -> list[Cell]:
    """All that there is to measure, arm by arm."""
    found: dict[str, Cell] = {}
    for i, arm in enumerate(arms):
        for seed in arm.cfg["seeds"]:
            run_id = "_".join(str(named(arm, seed)[column]) for column in program.key)
            found.setdefault(run_id, Cell(i, arm.cfg["lam"] if arm.uses_lambda else None, seed, run_id))
    return list(found.values())


def chunks(program: Program, arms: list[Arm]) -> list[list[Cell]]:
    """Cells that are measured at once: those of one seed of one configuration."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells(program, arms):
        found.setdefault((arms[cell.arm].config_id, cell.seed), []).append(cell)
    return list(found.values())


def opened(program: Program, arms: list[Arm]) -> Store:
    """The store of the folder that a command line names.

    Raises:
        UserError: it is of something else, or as `Store`.
    """
    store = Bench(program).store(grid.folder_of(arms[0].cfg))
    if program.one_configuration:
        there = {row["config_id"] for row in store.read([store.last]).get(store.last, [])}
        if there - {arm.config_id for arm in arms}:
            raise UserError(f"{store.folder}: holds another configuration; set name= to another")
    return store


def measure_missing(program: Program, overrides: Sequence[str]) -> Path:
    """Measure what is missing of what a command line composes, into <results_dir>/<name>, which is returned.

    Raises:
        UserError: bad values, missing data, a folder of something else; cells that failed, or that no time is left for.
    """
    began, arms = time.monotonic(), program.arms(overrides)
    device, bench = runtime.resolve_device(arms[0].cfg["device"]), Bench(program)
    program.check(bench, arms, device)
    checks.check_arms(bench, arms, device)
    store = opened(program, arms)
    store.create()
    store.merge()  # what a launch that was killed has left
    data = study.checksums(bench, arms, device)
    planned = study.Plan(arms, chunks(program, arms), store.folder, device, data, program.configs(arms))
    command = provenance.command(overrides, f"scripts/measure.py {program.script}")
    ended = study.launch(planned, store, command, 1, began, partial(Bench, program))
    if ended.unfinished:
        raise UserError(ended.unfinished)
    return ended.folder


def tell(program: Program, overrides: Sequence[str]) -> None:
    """Print how far the cells of a command line are, from the results folder alone."""
    arms = program.arms(overrides)
    status.show(arms, cells(program, arms), opened(program, arms), Console())
