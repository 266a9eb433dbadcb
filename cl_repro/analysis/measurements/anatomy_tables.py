"""The anatomy of the Fisher as tables, and in words why sample behaves like empirical."""

import numpy as np

from cl_repro.analysis.data.arms import label
from cl_repro.analysis.data.looks import LOOKS
from cl_repro.analysis.data.study import origin
from cl_repro.analysis.measurements.anatomy import Anatomy, spread
from cl_repro.analysis.output.markup import MINUS, Document, Table

MEASURES = {
    "ratio": "trace / EXACT's", "error": "error", "shape_error": "shape error", "rank_correlation": "rank correlation",
    "cost": "cost, epochs", "backward_passes": "backward passes",
}  # fmt: skip


def tables_of(found: Anatomy) -> list[Table]:
    """All tables, in reading order."""
    return [confidence_table(found), passes_table(found), layers_table(found)]


def document(found: Anatomy) -> Document:
    """Its tables as files."""
    return Document(found.name, f"{found.name}: {found.title}", tables_of(found), found.folder)


def confidence_table(found: Anatomy) -> Table:
    """The trained networks on their training examples, and what follows from it."""
    c = found.confidence
    rows = {
        "training examples": c["examples"],
        "training cross-entropy, nats": c["cross_entropy"],
        "training errors": c["errors"],
        "test accuracy, %": 100 * c["test_accuracy"],
        "probability of a wrong label: median": c["wrong_median"],
        "probability of a wrong label: mean": c["wrong_mean"],
        "probability of a wrong label: largest": c["wrong_max"],
        "wrong labels that a pass of SAMPLE draws, expected": c["wrong_expected"],
        "share of it that the ten most uncertain examples have, %": 100 * c["top_ten_share"],
        "squared logit gradient, EMPIRICAL / EXACT": c["empirical_weight"] / c["exact_weight"],
    }
    body = tuple((name, spread(values)) for name, values in rows.items())
    return Table(
        "confidence",
        "How confident the networks are on their training examples",
        ("After the first task", "median [smallest, largest] over seeds"),
        body,
        (*explanation(found), origin(found.passes)),
    )


def explanation(found: Anatomy) -> tuple[str, ...]:
    """Why sample behaves like empirical, or that it does not, with the numbers of these networks."""
    c, full = found.confidence, found.passes[found.passes["n"].isna()]
    sample = full[full["estimator"] == "sample"]
    empirical = full[full["estimator"] == "empirical"]
    same, clean = sample["equals_empirical"] == "True", sample["wrong_drawn"] == 0
    networks = f"{len(c)} networks, each" if len(c) > 1 else "1 network,"
    mostly = "is EMPIRICAL, number for number," if same.mean() > 0.5 else "is the same as EMPIRICAL"
    notes = [
        f"SAMPLE differs from EMPIRICAL only where it draws a label that is not the data's. A pass over all examples "
        f"draws {spread(c['wrong_expected'])} of them in expectation, so none at all with probability about "
        f"{spread(np.exp(-c['wrong_expected']))}. In fact "
        f"{int(clean.sum())} of {len(sample)} passes drew none ({networks} with "
        f"{sample['repeat'].nunique()} independent draws), and SAMPLE {mostly} in {int(same.sum())} of {len(sample)}.",
    ]
    if same.mean() <= 0.5:
        notes.append("So on these networks SAMPLE does not behave like EMPIRICAL for want of wrong labels.")
    if not clean.any():
        notes.append(
            f"It is unbiased: its passes have traces {spread(sample['ratio'])} times EXACT's; the mean of all is "
            f"{sample['ratio'].mean():.2g} times."
        )
    elif not clean.all():
        notes.append(
            f"It is unbiased all the same: the {int((~clean).sum())} passes with a wrong label "
            f"({spread(sample['wrong_drawn'][~clean])} each) have traces {spread(sample['ratio'][~clean])} times "
            f"EXACT's, the others {spread(sample['ratio'][clean])} times; the mean of all is "
            f"{sample['ratio'].mean():.2g} times. The expectation is in rare large passes; a run makes few of them."
        )
    else:
        notes.append(
            "It is unbiased all the same: what is missing from the trace comes in rare large passes, of which there is "
            f"about one in {1 / c['wrong_expected'].mean():.0f} here, so that none was seen."
        )
    rows = found.passes[(found.passes["estimator"] == "exact") & (found.passes["n"] == 500)]  # sampling error alone
    away = f"{spread(rows['shape_error'])} away, with {spread(rows['rank_correlation'])}"
    sampled = "" if rows.empty else f"; EXACT of 500 examples is {away}"
    notes += [
        f"The scale: with p the probability of the wrong label of two, EXACT weighs an example by p (1 {MINUS} p) "
        f"and EMPIRICAL by p squared. The squared gradients of the logits alone make EMPIRICAL "
        f"{spread(c['empirical_weight'] / c['exact_weight'])} times EXACT; the traces, {spread(empirical['ratio'])}.",
        f"The shape: with its best factor EMPIRICAL is {spread(empirical['shape_error'])} away from EXACT (0: a "
        f"multiple of it, 1: at right angles), with rank correlation {spread(empirical['rank_correlation'])}{sampled}.",
    ]
    share, alike = c["top_ten_share"], 10 / c["examples"].mean()  # alike: if all examples had the same
    have = f"the ten most uncertain of {spread(c['examples'])} have {spread(100 * share)}% of all wrong probability"
    if share.mean() > 10 * alike:
        return (*notes, f"Few examples decide: {have}, so a small n may miss them or have too many.")
    return (*notes, f"Many examples decide: {have}; if all had the same, it would be {100 * alike:.2g}%.")


def passes_table(found: Anatomy) -> Table:
    """Every estimator and n: size, distance from exact, cost."""
    body = [
        (name, *(spread(rows[key]) for key in MEASURES)) for name, rows in found.passes.groupby("label", sort=False)
    ]
    notes = [
        "Median [smallest, largest] over seeds, for SAMPLE over its independent draws, too. n: the first n of one "
        "random order of a seed's examples; without n: all of them.",
        f"Error: the length of F {MINUS} E over that of E, the exact Fisher of all examples. Shape error: the same "
        "after the best factor, which λ can make up for: the sine of the angle between F and E. Rank correlation: "
        "Spearman's, over the parameters whose exact Fisher is not 0.",
        "Cost: seconds of the estimate in seconds of one training epoch of the same network, in the same process. "
        "Backward passes: gradients that are backpropagated, one per mini-batch, or per example and column (EXACT: "
        "classes less one; the others: one).",
    ]
    if "exact_by_score" in set(found.passes["estimator"]):
        notes.append(
            "IMPORTANCE SAMPLE and BY SCORE over independent draws, too. BY SCORE chooses from all examples: a forward "
            "pass of each comes before the n backward passes, and is in its cost."
        )
    header = ("Estimator", *MEASURES.values())
    return Table("passes", "Every estimate beside the exact Fisher of all examples", header, tuple(body), tuple(notes))


def layers_table(found: Anatomy) -> Table:
    """Share of the trace by layer, all examples."""
    full = found.layers[found.layers["n"].isna()]
    means = full.pivot_table(index="layer", columns="estimator", values="share", sort=False)
    estimators = [name for name in LOOKS if name in means.columns]
    body = [(layer, *(f"{100 * row[e]:.1f}" for e in estimators)) for layer, row in means.iterrows()]
    note = "Percent, mean over seeds, all examples; first of the draws of SAMPLE."
    header = ("Layer", *(label("ewc", name) for name in estimators))
    return Table("layers", "Where the trace is", header, tuple(body), (note,))
