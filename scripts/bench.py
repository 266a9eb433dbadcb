"""Measure speed and memory as ratios within one process, beside their targets, into results/bench/<group>.csv."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benches import report
from benches.measure import Setting
from cl_repro.common import runtime
from cl_repro.common.errors import Parser, UserError, entry_point
from cl_repro.records import check_place

GROUPS = (
    "fisher", "importance_sampling", "convolution", "peers", "steps", "data", "unifying", "palliatives", "projection",
    "stacked", "whole_study", "sweep", "store", "checkpoint", "cuda", "cuda_study", "memory",
)  # fmt: skip
"""Modules of `benches`, each with its `rows`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: `arguments` without the program's name, or those of the process.

    A missed target is no error.
    """
    parser = Parser(description=__doc__)
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
    with entry_point():
        options = parser.parse_args(arguments)
        runtime.prepare()
        setting = Setting(options.rounds, options.data_dir, runtime.resolve_device("auto"))
        check_place(options.out)  # not after minutes of measuring
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{options.out}: cannot be made: {error.strerror}") from error
        measure(options.only or GROUPS, setting, options.out)


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be an integer of at least 1")
    return int(text)


def measure(groups: Sequence[str], setting: Setting, out: Path) -> None:
    """Measure each group, write its CSV, print all rows at the end."""
    speed, memory_rows = [], []
    for group in groups:
        print(f"{group} ...", file=sys.stderr, flush=True)
        rows = import_module(f"benches.{group}").rows(setting)
        report.write(group, rows, setting, out)
        (memory_rows if group == "memory" else speed).extend(rows)
    about = f"medians of {setting.rounds} interleaved rounds; {runtime.hardware('cpu')}"
    if speed:
        print(report.table(f"Speed: {about}; on a CPU processor time, one thread", speed))
    if memory_rows:
        print(report.table("Memory: bytes of all tensors a run holds", memory_rows))


if __name__ == "__main__":
    main()
