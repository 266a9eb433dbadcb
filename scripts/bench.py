"""Measure speed and memory as ratios within one process, beside their targets, into results/bench/<group>.csv."""

import argparse
import os
import sys
from pathlib import Path

from cl_repro import runtime
from cl_repro.bench import cuda, data, fisher, memory, report, stacked, steps, whole_study
from cl_repro.bench.measure import Setting
from cl_repro.errors import UserError

GROUPS = {
    "fisher": fisher.rows,
    "steps": steps.rows,
    "data": data.rows,
    "stacked": stacked.rows,
    "whole_study": whole_study.rows,
    "cuda": cuda.rows,
    "memory": memory.rows,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        Exit status: 0, or 2 after a one-line error; a missed target is no error.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=GROUPS, metavar="NAME", help=f"one of {', '.join(GROUPS)}; may be repeated"
    )
    parser.add_argument("--rounds", type=positive, default=7, help="medians are over this many (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="default: %(default)s")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("CL_REPRO_DATA") or "data"),
        help="folder of MNIST; random data of its size where it is not (default: $CL_REPRO_DATA, else data)",
    )
    options = parser.parse_args(arguments)
    runtime.prepare()
    setting = Setting(options.rounds, options.data_dir, runtime.resolve_device("auto"))
    try:
        measure(options.only or list(GROUPS), setting, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def measure(groups: list[str], setting: Setting, out: Path) -> None:
    """Measure each group, write its CSV, print all rows at the end."""
    speed, memory_rows = [], []
    for group in groups:
        print(f"{group} ...", file=sys.stderr, flush=True)
        rows = GROUPS[group](setting)
        report.write(group, rows, setting, out)
        (memory_rows if group == "memory" else speed).extend(rows)
    about = f"medians of {setting.rounds} interleaved rounds; {runtime.hardware('cpu')}"
    if speed:
        print(report.table(f"Speed: {about}; on a CPU processor time, one thread", speed))
    if memory_rows:
        print(report.table("Memory: bytes of all tensors a run holds", memory_rows))


if __name__ == "__main__":
    sys.exit(main())
