"""The committed notebooks show what their code prints: text outputs are compared, figures are not.

`python tests/test_notebooks.py [notebook ...]` executes notebooks (all, or those named) and writes them again.
"""

import ast
import base64
import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from cl_repro.analysis.output.figures import few_colours

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LIMIT = 500_000  # bytes of one notebook
# Folders of a machine, anywhere in a text; an address of an object changes from run to run.
OF_A_MACHINE = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|usr|opt|var|work|Users|mnt|srv|private)\b|[A-Z]:\\|0x[0-9a-f]{6}"
)
SHOWING = {"show", "print", "display"}
KEPT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
KEPT["language_info"] = {"name": "python"}


def executed(path: Path) -> NotebookNode:
    """The notebook, run from its first cell in its own folder, without what changes from run to run."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict(KEPT)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=where, record_timing=False).execute()
    notebook.metadata = nbformat.from_dict(KEPT)  # the client has noted the version of Python
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [lighter(output) for output in joined(cell.outputs)]
    return notebook


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with pieces of one stream put together: how it is cut depends on the time of day."""
    result: list[NotebookNode] = []
    for output in outputs:
        last = result[-1] if result else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            result.append(output)
    return result


def lighter(output: NotebookNode) -> NotebookNode:
    """The output, its picture as those in results/figures are kept."""
    if png := output.get("data", {}).get("image/png"):
        output.data["image/png"] = base64.b64encode(few_colours(io.BytesIO(base64.b64decode(png)), {})).decode()
    return output


def text(output: NotebookNode) -> Any:
    """What an output says; of a picture that there is one."""
    if output.output_type == "stream":
        return output.name, output.text
    data = output.get("data", {})
    return output.output_type, {kind: "" if kind.startswith("image/") else value for kind, value in data.items()}


def said(notebook: NotebookNode) -> list[tuple[str, list[Any]]]:
    """Source and text outputs of every code cell."""
    return [(cell.source, [text(one) for one in cell.outputs]) for cell in code(notebook)]


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def displays(source: str) -> bool:
    """Whether a cell ends in an expression, or calls something that shows outside of its functions and classes."""
    tree = ast.parse(re.sub(r"^%.*", "", source, flags=re.MULTILINE))
    body = [part for part in tree.body if not isinstance(part, ast.FunctionDef | ast.ClassDef)]
    calls = [one.func for part in body for one in ast.walk(part) if isinstance(one, ast.Call)]
    return isinstance(tree.body[-1], ast.Expr) or any(getattr(of, "id", "") in SHOWING for of in calls)


def test_there_are_seven() -> None:
    assert [path.name[0] for path in NOTEBOOKS] == list("1234567")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_was_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert bool(cell.outputs) == displays(cell.source), cell.source
        for output in cell.outputs:
            assert output.output_type != "error", output
            assert output.get("name") != "stderr", output
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_left_in_it(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == KEPT
    assert all(not cell.metadata for cell in notebook.cells)
    words = "\n".join([cell.source for cell in notebook.cells] + [str(outputs) for _, outputs in said(notebook)])
    assert not OF_A_MACHINE.search(words)
    assert path.stat().st_size < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_stale(path: Path) -> None:
    committed = said(nbformat.read(path, as_version=4))
    for (source, before), (_, now) in zip(committed, said(executed(path)), strict=True):
        assert now == before, source


if __name__ == "__main__":
    for named in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        nbformat.write(executed(named), named)
        print(named)
