"""How far a study is: its lambda x seed grid per arm, from the results folder alone. No torch."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cl_repro.common.errors import UserError, visible
from cl_repro.records import Store, checkpoint_file, kept
from cl_repro.records.files import PATIENCE, holder
from cl_repro.study import grid, window
from cl_repro.study.compose import from_command_line
from cl_repro.study.config import check

LOOKS = {
    "done": ("●", "green"),
    "diverged": ("▲", "magenta"),
    "running": ("◐", "cyan"),
    "stopped": ("◔", "yellow"),
    "failed": ("✗", "red"),
    "missing": ("·", "bright_black"),
}


class Progress(NamedTuple):
    """How far one study is."""

    state: dict[str, str]  # run_id -> a key of LOOKS
    elapsed: float  # seconds from the start of the last command to the last row
    remaining: float | None  # seconds at the pace of that command; None if it has finished nothing


def main(overrides: Sequence[str]) -> None:
    """`python -m cl_repro status`: `status` of what these overrides compose."""
    status(from_command_line(overrides))


def status(arms_cfg: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print a study's grid, on standard output by default.

    Raises a `UserError` for bad values, or a results folder that is not as this program left it.
    """
    for cfg in arms_cfg:
        check(cfg)
    folder = grid.folder_of(arms_cfg[0])
    store = Store(folder)  # refused, if it is not ours, before it is asked for windows
    arms = [grid.make_arm(cfg) for cfg in window.placed(arms_cfg, kept(folder, window.FILE))]
    show(arms, grid.cells(arms), store, console or Console())


def show(arms: Sequence[grid.Arm], cells: Sequence[grid.Cell], store: Store, console: Console) -> None:
    """Print what a results folder says about these cells."""
    progress = progress_of(cells, store)
    of_arm: dict[int, list[grid.Cell]] = {i: [] for i in range(len(arms))}
    for cell in cells:
        of_arm[cell.arm].append(cell)
    tables = [table_of(arm, of_arm[i], progress.state) for i, arm in enumerate(arms)]
    console.print(Columns(tables, padding=(0, 3)))
    counts = Counter(progress.state.values())
    line = Text(f"{store.folder}: ")
    for name, (mark, colour) in LOOKS.items():
        if counts[name]:
            line.append(f"{mark} {counts[name]} {name}  ", style=colour)
    console.print(line, soft_wrap=True)
    if progress.remaining is not None and counts["done"] + counts["diverged"] < len(cells):
        console.print(f"elapsed {duration(progress.elapsed)}, about {duration(progress.remaining)} to go at this pace")
    for path in store.set_aside():
        text = f"{path}: damaged, set aside; its runs are computed again, and you may remove it"
        console.print(text, markup=False, soft_wrap=True)
    if held := holder(Path(store.lock.lock_file), PATIENCE):
        console.print(f"{store.lock.lock_file}: {held}; no row is added meanwhile", markup=False, soft_wrap=True)


def progress_of(cells: Sequence[grid.Cell], store: Store) -> Progress:
    """What a results folder says about these cells; a folder that does not exist says that nothing is done."""
    state = {cell.run_id: "missing" for cell in cells}
    finished = store.finished()
    rows = {run_id: run for run_id, run in store.runs.items() if run_id in state}
    running, stopped = begun(store)
    marks = [(store.failed_runs(), "failed"), (stopped, "stopped"), (running, "running"), (finished, "done")]
    marks.append(({run_id for run_id, run in rows.items() if run.status == "diverged"}, "diverged"))
    for run_ids, name in marks:
        state |= dict.fromkeys(state.keys() & run_ids, name)
    invocations = store.provenance()["invocations"]
    if not any(run.finished for run in rows.values()) or not invocations:
        return Progress(state, 0.0, None)
    try:
        began = moment(invocations[-1]["started"])
        ended = [moment(run.finished) for run in rows.values() if run.finished]  # not every table says it
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{store.folder}: a time that this program has not written ({error}); restore the folder"
        ) from error
    fresh, last = sum(at >= began for at in ended), max(ended)
    left = sum(name not in ("done", "diverged") for name in state.values())
    elapsed = (last - began).total_seconds()
    return Progress(state, elapsed, elapsed / fresh * left if fresh else None)


def begun(store: Store) -> tuple[set[str], set[str]]:
    """run_ids of the chunks that are computed now, and of those that were stopped and left a checkpoint.

    Computed now means that the chunk's lock is held: the kernel frees it when its holder dies.
    """
    running: set[str] = set()
    stopped: set[str] = set()
    for path in store.spool.glob("*.running"):
        try:
            run_ids = set(json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError):
            continue  # it ended meanwhile; or the machine crashed, and nobody computes it
        if holder(path.with_suffix(".lock")):
            running |= run_ids
        elif checkpoint_file(store.folder, path.stem).exists():
            stopped |= run_ids
    return running, stopped


def table_of(arm: grid.Arm, cells: Sequence[grid.Cell], state: dict[str, str]) -> Table:
    """One arm's lambdas as rows, a mark per seed."""
    table = Table(title=Text(visible(arm.label)), title_justify="left", title_style="bold", box=None, padding=(0, 1))
    seeds = sorted({cell.seed for cell in cells})
    table.add_column("lambda", justify="right")
    table.add_column(f"seeds {seeds[0]} to {seeds[-1]}" if seeds else "")
    for lam in dict.fromkeys(cell.lam for cell in cells):
        marks = Text()
        for cell in sorted((c for c in cells if c.lam == lam), key=lambda c: c.seed):
            mark, colour = LOOKS[state[cell.run_id]]
            marks.append(mark, style=colour)
        table.add_row("-" if lam is None else f"{lam:g}", marks)
    return table


def moment(text: str) -> datetime:
    """A time as the results write it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def duration(seconds: float) -> str:
    """A time for a reader: 1 h 05 min, 3 min, 12 s."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
