"""What a folder of results is, and which figures and tables are made of it: the one place that knows.

A folder is of the kind whose file it has. The report has a section for every kind, too (`cl_repro.report.collect`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cl_repro.analysis.comparisons import comparison_figure, matrices
from cl_repro.analysis.data.read import read_measured
from cl_repro.analysis.data.settings import COMPARISON
from cl_repro.analysis.data.study import CURVES, TIMING, Study, open_study
from cl_repro.analysis.lambdas import collapse, curves, tables
from cl_repro.analysis.measurements import anatomy_cost, anatomy_tables, idea, unifying_figures, unifying_tables
from cl_repro.analysis.measurements.anatomy import open_anatomy
from cl_repro.analysis.measurements.unifying import by_scale, open_figures
from cl_repro.analysis.output.figures import Drawing
from cl_repro.analysis.output.markup import Document
from cl_repro.common.errors import Skipping, UserError
from cl_repro.records import measured

STUDY, ANATOMY, FIGURES, SEARCH, IDEA = "study", "anatomy", "figures", "search", "idea"


def alone(found: Sequence[Any]) -> list[list[Any]]:
    """Each has figures of its own."""
    return [[one] for one in found]


class Kind(NamedTuple):
    """A kind of folder, and what is made of one that has been opened."""

    file: str  # that no folder of another kind has
    open: Callable[[str, Path], Any]  # (its name, the folder of all results) -> what was read; it has `folder`
    drawings: Callable[..., list[Drawing]] = lambda found: []  # of folders that share their figures
    documents: Callable[[Any], list[Document]] = lambda found: []
    together: Callable[[Sequence[Any]], list[list[Any]]] = alone  # which share figures


def main_drawings(study: Study) -> list[Drawing]:
    """What a study is about; drawn when it ends."""
    return {COMPARISON: comparison_figure.drawings, TIMING: lambda _: []}.get(study.kind, curves.drawings)(study)


def study_drawings(study: Study) -> list[Drawing]:
    """That; whether its curves fall on each other; and every task after every task."""
    collapsed = collapse.drawings(study) if study.kind == CURVES else []
    return [*main_drawings(study), *collapsed, *matrices.drawings(study)]


def study_documents(study: Study) -> list[Document]:
    """Its tables, and those of whether its curves fall on each other."""
    return [tables.document(study), *(collapse.documents(study) if study.kind == CURVES else [])]


KINDS = {
    STUDY: Kind("runs.csv", open_study, study_drawings, study_documents),
    ANATOMY: Kind("anatomy.csv", open_anatomy, anatomy_cost.drawings, lambda found: [anatomy_tables.document(found)]),
    FIGURES: Kind(
        "networks.csv",
        open_figures,
        unifying_figures.drawings,
        lambda found: [unifying_tables.document(found)],
        by_scale,
    ),
    SEARCH: Kind("attempts.csv", lambda name, results_dir: read_measured(results_dir / name, measured.SEARCH)),
    IDEA: Kind("paths.csv", lambda name, results_dir: read_measured(results_dir / name, measured.IDEA), idea.drawings),
}


class Opened(NamedTuple):
    """Folders of one kind that share their figures; of most kinds each is alone."""

    kind: str
    found: list[Any]  # as `Kind.open` returns them, at least one

    @property
    def folder(self) -> Path:
        """The first."""
        return self.found[0].folder

    def drawings(self) -> list[Drawing]:
        """Their figures."""
        return KINDS[self.kind].drawings(*self.found)

    def documents(self) -> list[Document]:
        """The tables of each."""
        return [document for one in self.found for document in KINDS[self.kind].documents(one)]


def kind_of(folder: Path) -> str:
    """The kind of a folder. Raises UserError where it is none of results."""
    for name, kind in KINDS.items():
        if (folder / kind.file).is_file():
            return name
    raise UserError(f"no results at {folder} (there: {', '.join(folders(folder.parent)) or 'none'})")


def folders(results_dir: Path, kind: str = "") -> list[str]:
    """Names of the folders of a kind, or of any."""
    files = [KINDS[kind].file] if kind else [one.file for one in KINDS.values()]
    return sorted({path.parent.name for file in files for path in results_dir.glob(f"*/{file}")})


def opened(names: Sequence[str], results_dir: Path, skipping: Skipping) -> list[Opened]:
    """Folders, kind by kind: those that are named, or all that are there; a bad one is treated as `skipping` says."""
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for name in names or folders(results_dir):
        with skipping.attempt(results_dir / name):
            kind = kind_of(results_dir / name)
            found[kind].append(KINDS[kind].open(name, results_dir))
    groups: list[Opened] = []
    for kind, ones in found.items():
        if ones:
            with skipping.attempt(ones[0].folder):
                groups += [Opened(kind, those) for those in KINDS[kind].together(ones)]
    return groups
