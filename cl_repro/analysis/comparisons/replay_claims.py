"""How many stored examples of each class are worth as much as EWC: the claims of surveys, in numbers."""

import re
from typing import NamedTuple

from cl_repro.analysis.comparisons.comparison import Entry
from cl_repro.analysis.data.settings import Settings
from cl_repro.analysis.data.study import SCENARIOS
from cl_repro.analysis.lambdas.accuracy import interval_text
from cl_repro.analysis.output.markup import MINUS, Table

LABEL = re.compile(r"\[(?P<policy>.*?)_?(?P<n>\d+)_a_class\]$")
NAMES = {"": "replay, end-of-task memory", "insert_all": "replay, everything inserted"}


class Curve(NamedTuple):
    """Replay with one kind of memory in one scenario."""

    policy: str  # empty: the study's own
    sizes: list[int]  # examples a class
    entries: list[Entry]


def curves_of(found: list[Entry], scenario: str) -> list[Curve]:
    """The curves of a scenario, by the labels <policy>_<n>_a_class of their arms."""
    parts: dict[str, dict[int, Entry]] = {}
    for entry in (entry for entry in found if entry.scenario == scenario):
        if match := LABEL.search(entry.arm.label):
            parts.setdefault(match["policy"], {})[int(match["n"])] = entry
    return [Curve(policy, sorted(of), [of[n] for n in sorted(of)]) for policy, of in parts.items()]


def with_sizes(found: list[Entry]) -> bool:
    """Whether there are arms that differ in how many examples they store."""
    return any(LABEL.search(entry.arm.label) for entry in found)


def claims_table(settings: Settings, found: list[Entry]) -> Table:
    """What each step in examples a class gains, and each size against EWC, paired by seed."""
    body = []
    for scenario in SCENARIOS:
        ewc = [entry for entry in found if (entry.scenario, entry.arm.method) == (scenario, "ewc")]
        for curve in curves_of(found, scenario):
            before: Entry | None = None
            for n, entry in zip(curve.sizes, curve.entries, strict=True):
                other = next((one for one in ewc if one.arm.compares(entry.arm)), None)
                gaps = [interval_text(entry.minus(one, settings.confidence)) if one else "" for one in (before, other)]
                body.append((f"{SCENARIOS[scenario]}, {NAMES[curve.policy]}", str(n), *gaps))
                before = entry
    header = ("Scenario and memory", "examples a class", "gain over the row above", f"replay {MINUS} EWC")
    notes = (
        "Points of test accuracy; brackets: "
        f"{settings.confidence:.0%} t-intervals paired by seed. EWC: exact Fisher, best of five λ on held-out rows.",
    )
    return Table(
        "claims", "Do gains diminish beyond 20 examples a class, and do 10 to 20 beat EWC?", header, tuple(body), notes
    )
