"""Write docs/methods.md and docs/deviations.md from docstrings, comments and configuration files."""

from pathlib import Path

from cl_repro.documentation import deviations, methods
from cl_repro.errors import entry_point
from cl_repro.records import write_atomically

if __name__ == "__main__":
    with entry_point():
        for name, text in (("methods", methods()), ("deviations", deviations())):
            path = Path(f"docs/{name}.md")
            write_atomically(path, text.encode())
            print(path)
