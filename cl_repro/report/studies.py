"""The section of a folder of runs: charts, tables, origin and cost."""

import pandas as pd

from cl_repro.analysis.comparisons.comparison import compared
from cl_repro.analysis.comparisons.dots import few
from cl_repro.analysis.data.arms import grid_of
from cl_repro.analysis.data.settings import COMPARISON, load
from cl_repro.analysis.data.study import (
    CURVES,
    LISTING,
    PLACE,
    Study,
    benchmark_name,
    commits,
    describe,
    most_lambdas,
    origin,
)
from cl_repro.analysis.lambdas.accuracy import at_best, estimate_text, lambda_text
from cl_repro.analysis.lambdas.collapse import collapse
from cl_repro.analysis.lambdas.collapse import table as collapse_table
from cl_repro.analysis.lambdas.tables import tables_of
from cl_repro.analysis.output.markup import Table
from cl_repro.common.stats import estimate
from cl_repro.report import curves, sizes
from cl_repro.report.chart import Chart
from cl_repro.report.section import KINDS, Place, Section, capital, commands, minutes, one

ROWS = 30  # of a listing; a longer one is shown in short
CLAIMS = "claims"  # the table of what stored examples are worth, there where arms differ in how many they store


def section(place: Place, study: Study) -> Section:
    """Charts first, where they show what the study is about; in a comparison of methods lambda comes last."""
    runs, tables, more = study.runs, _tables(study), []
    charts = _charts(study, tables)
    places = [*runs.groupby(PLACE).groups] if study.kind != COMPARISON else []
    stems = [study.name, *("_".join([study.name, *key]) for key in places if len(places) > 1)]
    pictures = place.pictures(stems, f"{study.name}: {KINDS[study.kind]}")
    if study.kind == COMPARISON and not charts and most_lambdas(runs) > 1:
        more = curves.charts(study)
    others = place.pictures([f"collapse_{study.name}"], "")  # what the second axis of a chart shows
    return Section(
        name=study.name,
        title=_title(study),
        kind=study.kind,
        benchmark=one(runs["benchmark"]),
        sentence=_sentence(study),
        facts=[("Origin", origin(runs)), *commands(study.folder), ("Cost", _cost(runs))],
        commits=commits(runs),
        links=place.files(study.name) + [link for picture in others for link in picture.links],
        charts=charts,
        drawn=pictures if charts else [],
        pictures=[] if charts else pictures,
        tables=tables,
        more=more,
    )


def _title(study: Study) -> str:
    """Of the folder, which may have begun as a copy of another's, or of its study; else what kind it is of."""
    own = load(study.name.removesuffix(f"_{study.runs['scale'].iloc[0]}"))
    return own.title or study.settings.title or capital(KINDS[study.kind])


def _charts(study: Study, tables: list[Table]) -> list[Chart]:
    """Accuracy against lambda, or against stored examples; none where a study is about something else."""
    if study.kind == COMPARISON:
        return sizes.charts(study, compared(study)) if any(table.name == CLAIMS for table in tables) else []
    if study.kind not in (CURVES, LISTING) or most_lambdas(study.runs) < 2 or few(study.runs):
        return []
    return curves.charts(study)


def _sentence(study: Study) -> str:
    """Benchmark, scenario, seeds and scale, and what was run."""
    runs, n = study.runs, most_lambdas(study.runs)
    arms, bad = runs["config_id"].nunique(), int((runs["status"] != "ok").sum())
    parts = [
        f"{KINDS[study.kind]}, {arms} arm{'s' * (arms != 1)}" + (f", up to {n} values of λ" if n > 1 else ""),
        f"network {', '.join(sorted(runs['model'].unique()))}",
        f"{len(runs):,} run{'s' * (len(runs) != 1)}" + (f", of which {bad} diverged or failed" if bad else ""),
    ]
    return f"{describe(study.reported)}: {'; '.join(parts)}."


def _tables(study: Study) -> list[Table]:
    """As `make tables`; a listing of many cells in short; where curves rise before and after scaling."""
    tables = tables_of(study)
    if study.kind == LISTING:
        return [table if len(table.rows) <= ROWS else _in_short(study, table) for table in tables]
    found = collapse(study) if study.kind == CURVES else None
    after = next((i for i, table in enumerate(tables, 1) if table.name == "gaps"), 2)
    return [*tables[:after], *([collapse_table(study, found)] if found else []), *tables[after:]]


def _in_short(study: Study, table: Table) -> Table:
    """The best λ of every arm instead of all; cut where even that is long."""
    body = []
    for (benchmark, scenario, model), runs in study.runs.groupby(PLACE):
        for arm, lam, values in at_best(grid_of(runs, study.folder)):
            row = (arm.label, benchmark_name(benchmark), scenario, model, lambda_text(lam))
            body.append((*row, estimate_text(estimate(values))))
    left_out = [f"{len(body) - ROWS} more arms are left out here."] if len(body) > ROWS else []
    short = f"Every arm at the λ of its highest mean; all {len(table.rows)} cells of arm and λ are in runs.csv."
    header = (*table.header[:4], "best λ", table.header[-1])
    return Table("best", "Every arm at its best λ", header, tuple(body[:ROWS]), (short, *left_out, *table.notes))


def _cost(runs: pd.DataFrame) -> str:
    """Sums of seconds_total by kind of device, and the largest memory of a process."""
    shared = "; a first task that runs share is counted in each" if runs["shared_first_task"].any() else ""
    most = runs["peak_memory"].max()
    peak = f"; largest memory of a process {most / 1e9:.2g} GB" if most > 0 else ""
    return f"{minutes(runs, 'seconds_total')}, the sum over {len(runs):,} runs{shared}{peak}."
