"""What every CSV under results/ holds: its columns, their types and units, and what they mean. Stated here alone.

Writer, reader, checks and documentation take it from here; `measured` has what is measured beside a study.
"""

from collections.abc import Mapping

from cl_repro.records.columns import BOOL, FLOAT, FRACTION, INT, ORIGIN, TEXT, Column, Table, usual
from cl_repro.records.measured import ANATOMY, IDEA, SEARCH, UNIFYING

# --- a study ----------------------------------------------------------------------------------------------------------

RUNS: Table = {
    **usual("run_id", "config_id"),
    "study": Column(TEXT, "name of the study that computed it"),
    "scale": Column(TEXT, "the protocol that the run follows: paper, or a smaller one"),
    **usual("arm", "benchmark"),
    "scenario": Column(TEXT, "which logits are active: task, domain or class"),
    **usual("model", "method", "fisher", "lambda", "seed"),
    "batch_size": Column(INT, "of training", "examples"),
    "iterations": Column(INT, "of a task, the longest", "steps"),
    "n_tasks": Column(INT, "length of the sequence", "tasks"),
    **usual("accuracy"),
    "forgetting": Column(FLOAT, "mean over earlier tasks of the best accuracy less the last", FRACTION),
    "bwt": Column(FLOAT, "backward transfer: the last accuracy less the one just after the task, mean", FRACTION),
    "fwt": Column(
        FLOAT,
        "forward transfer: accuracy before the task less the untrained network's, mean; always 0 in scenario=class, "
        "where outputs of later tasks are not active",
        FRACTION,
    ),
    **usual("status"),
    "seconds_train": Column(FLOAT, "of training; a shared first task counts in full", "s"),
    "seconds_fisher": Column(FLOAT, "of importance passes", "s"),
    "seconds_eval": Column(FLOAT, "of tests", "s"),
    "seconds_total": Column(FLOAT, "sum of the three", "s"),
    "replicas_in_chunk": Column(INT, "K, the replicas that trained as one stack; seconds are a K-th of the stack's"),
    "shared_first_task": Column(BOOL, "whether the first task was trained once for several runs"),
    "peak_memory": Column(FLOAT, "most memory of the process, or of the CUDA device", "bytes"),
    **usual(*ORIGIN),
}
STUDY: dict[str, Table] = {
    "accuracy.csv": {
        **usual("run_id"),
        "split": Column(TEXT, "test, or val: validation rows"),
        "after_task": Column(INT, "task learned last, from 0 on; -1 is the untrained network"),
        "task": Column(INT, "task tested, from 0 on"),
        "accuracy": Column(FLOAT, "of the task", FRACTION),
    },
    "importance.csv": {
        **usual("run_id"),
        "after_task": Column(INT, "task learned, from 0 on"),
        "trace": Column(FLOAT, "sum over all weights of the new importance, the mean over examples without prefactor"),
    },
    "storage.csv": {
        **usual("run_id"),
        "kind": Column(TEXT, "state, examples, logits, teacher or columns"),
        "bytes": Column(INT, "that the method keeps besides network, gradient and optimiser", "bytes"),
    },
    "representation.csv": {
        **usual("run_id"),
        "measure": Column(TEXT, "overlap between tasks of what the head reads; active: share of its units that are"),
        "value": Column(FLOAT, "of the measure", FRACTION),
    },
    "runs.csv": RUNS,
}

# --- what no run writes -----------------------------------------------------------------------------------------------

BENCH: Table = {
    "name": Column(TEXT, "what is measured"),
    "ours": Column(FLOAT, "figure of this code", "as `unit`"),
    "other": Column(FLOAT, "figure of what it is compared with", "as `unit`"),
    "unit": Column(TEXT, "of both"),
    "value": Column(FLOAT, "what is compared with the target; empty: not measured", "as `value_unit`"),
    "value_unit": Column(TEXT, "of value and target"),
    "target": Column(FLOAT, "empty: none", "as `value_unit`"),
    "better": Column(TEXT, "whether value has to be at least or at most the target"),
    "note": Column(TEXT, "how it was measured"),
    "verdict": Column(TEXT, "met, not met, not measured; - without a target"),
    "rounds": Column(INT, "interleaved, of which the figures are medians"),
    **usual("git_sha", "dirty", "hardware", "torch"),
    "date": Column(TEXT, "when, UTC"),
}
IDENTITY: Table = {
    "study": Column(TEXT, "of ours that the number belongs to"),
    "source": Column(TEXT, "publication"),
    **usual("benchmark"),
    "scenario": Column(TEXT, "task, domain or class"),
    **usual("method"),
    "fisher": Column(TEXT, "name of the estimator"),
    "variant": Column(TEXT, "of the method, where the publication has several"),
    "batch_size": Column(FLOAT, "of training", "examples"),
    "metric": Column(TEXT, "accuracy or train_time"),
}
PUBLISHED: Table = {
    **IDENTITY,
    "value": Column(FLOAT, "as printed", "as `unit`"),
    "unit": Column(TEXT, "percent, s or min"),
    "spread": Column(FLOAT, "as printed; empty: none", "as `unit`"),
    "spread_kind": Column(TEXT, "sem, std, std_ddof0 or none"),
    "n_seeds": Column(FLOAT, "published", "seeds"),
    "delta": Column(FLOAT, "up to how many points off it agrees; empty: as conf/analysis.yaml says", "points"),
    "comparable": Column(TEXT, "same, different, or ratio_to_none: which of our numbers may stand beside it"),
    "note": Column(TEXT, "how it was made"),
}
REFERENCE: Table = {
    "figure": Column(TEXT, "of the publication"),
    **usual("benchmark"),
    "quantity": Column(TEXT, "what was published"),
    "task": Column(FLOAT, "from 1 on; empty: all"),
    "value": Column(FLOAT, "as published"),
    "note": Column(TEXT, "where it is from"),
}
LEDGER: Table = {
    # As text: with the verdict it tells whether a row that agreed still does.
    **{name: column._replace(type=TEXT) for name, column in IDENTITY.items()},
    "note": Column(TEXT, "how the published number was made"),
    "unit": Column(TEXT, "of published, ours and their difference"),
    "spread_kind": Column(TEXT, "sem, std, std_ddof0 or none"),
    "published": Column(FLOAT, "as printed", "as `unit`"),
    "published_spread": Column(FLOAT, "as printed", "as `unit`"),
    "published_n": Column(FLOAT, "published", "seeds"),
    "published_ratio": Column(FLOAT, "of a time to that of None", "times"),
    "ours": Column(FLOAT, "mean over seeds; empty: not run", "as `unit`"),
    "ours_sem": Column(FLOAT, "its standard error", "as `unit`"),
    "ours_n": Column(FLOAT, "ours", "seeds"),
    "ours_lambda": Column(FLOAT, "of the best mean"),
    "difference": Column(FLOAT, "ours less published", "as `unit`"),
    "low": Column(FLOAT, "end of its interval", "as `unit`"),
    "high": Column(FLOAT, "end of its interval", "as `unit`"),
    "verdict": Column(TEXT, "as LEDGER.md explains"),
    "remark": Column(TEXT, "why"),
    "command": Column(TEXT, "that makes the number"),
    "invocations": Column(TEXT, "commands that were run"),
    "commit": Column(TEXT, "of the code that ran"),
    "hardware": Column(TEXT, "that it ran on"),
    "date": Column(TEXT, "of the last run, UTC"),
}

GROUPS: dict[str, Mapping[str, Table]] = {  # title -> file -> columns
    "A study, results/<study>/": STUDY,
    "The anatomy of the Fisher, results/anatomy_<benchmark>/": ANATOMY,
    "The unifying study's figures, results/unifying_figures_<benchmark>/": UNIFYING,
    "The idea of EWC in a plane, results/idea/": IDEA,
    "A search of lambda, results/strength_search_<benchmark>/": SEARCH,
    "Speed and memory, results/bench/": {"<group>.csv": BENCH},
    "Published numbers, results/published/": {"published.csv": PUBLISHED, "unifying_reference.csv": REFERENCE},
    "The ledger, results/": {"ledger.csv": LEDGER},
}
