"""Write docs/methods.md from docstrings and configuration files."""

from pathlib import Path

from cl_repro.documentation import methods
from cl_repro.errors import entry_point
from cl_repro.records import write_atomically

if __name__ == "__main__":
    with entry_point():
        path = Path("docs/methods.md")
        write_atomically(path, methods().encode())
        print(path)
