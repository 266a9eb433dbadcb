"""Write the ledger: every published number beside ours. With --check: fail if a row that agreed does not any more."""

import sys
from pathlib import Path

from cl_repro.analysis.ledger.files import regressions, write_ledger
from cl_repro.common.errors import Parser, entry_point, existing_folder


def main() -> int:
    """Exit status: 0; 1 where a row that agreed does not any more, or a folder has no checksums; 2 after a mistake."""
    parser = Parser(description=__doc__)
    parser.add_argument("--results-dir", type=existing_folder, default=Path("results"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="compare with <results-dir>/ledger.csv, write nothing")
    with entry_point():
        arguments = parser.parse_args()
        if not arguments.check:
            print(*write_ledger(arguments.results_dir), sep="\n")
            return 0
        lost = regressions(arguments.results_dir)
    print(*lost, sep="\n", end="\n" if lost else "", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
