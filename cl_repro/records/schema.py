"""What every CSV under results/ holds: its columns, their types and units, and what they mean. Stated here alone.

Writer, reader, checks and documentation take it from here. Types: a `number` may be empty (there is none: of a run that
diverged, of a method without lambda); an `integer` and a `boolean` may not; `text` may be empty.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

TEXT, FLOAT, INT, BOOL = "text", "number", "integer", "boolean"


class Column(NamedTuple):
    """One column of a CSV."""

    type: str  # TEXT, FLOAT, INT or BOOL
    meaning: str
    unit: str = ""


Table = Mapping[str, Column]  # by name, in the order of the file

RUN_ID = Column(TEXT, "hash of configuration, lambda and seed: the same cell of two studies is the same run")
TASK = Column(INT, "task, from 1 on")
SEED = Column(INT, "of tasks, initial weights and batches")
CONFIG_ID = Column(TEXT, "hash of what an arm computes, but for lambda and seed; its settings are in configs/")
FRACTION = "fraction"
ORIGIN = {
    "dtype": Column(TEXT, "type of weights and activations"),
    "device": Column(TEXT, "cpu or cuda"),
    "hardware": Column(TEXT, "processor, cores and threads; or the CUDA device"),
    "torch": Column(TEXT, "version"),
    "git_sha": Column(TEXT, "commit of the code"),
    "dirty": Column(BOOL, "whether tracked files differed from the commit"),
    "finished": Column(TEXT, "when, UTC"),
    "schema_version": Column(INT, "of the results; another one is refused"),
}

# --- a study ----------------------------------------------------------------------------------------------------------

RUNS: Table = {
    "run_id": RUN_ID,
    "config_id": CONFIG_ID,
    "study": Column(TEXT, "name of the study that computed it"),
    "scale": Column(TEXT, "the protocol that the run follows: paper, or a smaller one"),
    "arm": Column(TEXT, "what the study calls the configuration"),
    "benchmark": Column(TEXT, "name of the benchmark"),
    "scenario": Column(TEXT, "which logits are active: task, domain or class"),
    "model": Column(TEXT, "name of the network"),
    "method": Column(TEXT, "name of the method"),
    "fisher": Column(TEXT, "name of the estimator; empty where the method uses none, or its own"),
    "lambda": Column(FLOAT, "of the penalty; empty for methods without one"),
    "seed": SEED,
    "batch_size": Column(INT, "of training", "examples"),
    "iterations": Column(INT, "of a task, the longest", "steps"),
    "n_tasks": Column(INT, "length of the sequence", "tasks"),
    "accuracy": Column(FLOAT, "mean over tasks after the last one; empty if the run diverged", FRACTION),
    "forgetting": Column(FLOAT, "mean over earlier tasks of the best accuracy less the last", FRACTION),
    "bwt": Column(FLOAT, "backward transfer: the last accuracy less the one just after the task, mean", FRACTION),
    "fwt": Column(FLOAT, "forward transfer: accuracy before the task less the untrained network's, mean", FRACTION),
    "status": Column(TEXT, "ok or diverged"),
    "seconds_train": Column(FLOAT, "of training; a shared first task counts in full", "s"),
    "seconds_fisher": Column(FLOAT, "of importance passes", "s"),
    "seconds_eval": Column(FLOAT, "of tests", "s"),
    "seconds_total": Column(FLOAT, "sum of the three", "s"),
    "replicas_in_chunk": Column(INT, "K, the replicas that trained as one stack; seconds are a K-th of the stack's"),
    "shared_first_task": Column(BOOL, "whether the first task was trained once for several runs"),
    "peak_memory": Column(FLOAT, "most memory of the process, or of the CUDA device", "bytes"),
    **ORIGIN,
}
STUDY: dict[str, Table] = {
    "accuracy.csv": {
        "run_id": RUN_ID,
        "split": Column(TEXT, "test, or val: validation rows"),
        "after_task": Column(INT, "task learned last, from 0 on; -1 is the untrained network"),
        "task": Column(INT, "task tested, from 0 on"),
        "accuracy": Column(FLOAT, "of the task", FRACTION),
    },
    "importance.csv": {
        "run_id": RUN_ID,
        "after_task": Column(INT, "task learned, from 0 on"),
        "trace": Column(FLOAT, "sum over all weights of the new importance, the mean over examples without prefactor"),
    },
    "storage.csv": {
        "run_id": RUN_ID,
        "kind": Column(TEXT, "state, examples, logits, teacher or columns"),
        "bytes": Column(INT, "that the method keeps besides network, gradient and optimiser", "bytes"),
    },
    "representation.csv": {
        "run_id": RUN_ID,
        "measure": Column(TEXT, "overlap between tasks of what the head reads; active: share of its units that are"),
        "value": Column(FLOAT, "of the measure", FRACTION),
    },
    "runs.csv": RUNS,
}

# --- measurements beside a study --------------------------------------------------------------------------------------

_NETWORK = {
    "config_id": CONFIG_ID,
    "benchmark": Column(TEXT, "name of the benchmark"),
    "model": Column(TEXT, "name of the network"),
    "seed": SEED,
}
_ESTIMATE = {
    **_NETWORK,
    "estimator": Column(TEXT, "name of the estimator"),
    "n": Column(FLOAT, "examples it was asked to use; empty: all", "examples"),
    "repeat": Column(INT, "of the same estimate with other draws, from 0 on"),
}
ANATOMY: dict[str, Table] = {
    "layers.csv": {
        **_ESTIMATE,
        "layer": Column(TEXT, "name of the layer"),
        "share": Column(FLOAT, "of the trace that lies in the layer", FRACTION),
    },
    "confidence.csv": {
        **_NETWORK,
        "examples": Column(INT, "of the task", "examples"),
        "cross_entropy": Column(FLOAT, "mean over examples", "nats"),
        "errors": Column(INT, "examples that are classified wrongly", "examples"),
        "wrong_median": Column(FLOAT, "median over examples of the probability of all wrong labels"),
        "wrong_mean": Column(FLOAT, "mean of the same"),
        "wrong_max": Column(FLOAT, "largest of the same"),
        "wrong_expected": Column(FLOAT, "sum of the same: wrong labels that a pass of `sample` draws in expectation"),
        "top_ten_share": Column(FLOAT, "of that sum, by the ten most uncertain examples", FRACTION),
        "exact_weight": Column(FLOAT, "mean over examples of sum_y p(y) ||p - onehot(y)||^2"),
        "empirical_weight": Column(FLOAT, "mean over examples of ||p - onehot(label)||^2"),
        "test_accuracy": Column(FLOAT, "of the first task", FRACTION),
        "epoch_seconds": Column(FLOAT, "of one training epoch", "s"),
        **ORIGIN,
    },
    "anatomy.csv": {
        **_ESTIMATE,
        "examples": Column(INT, "that were used", "examples"),
        "unit": Column(INT, "examples whose mean gradient is squared: 1, or the batch size of BATCHED", "examples"),
        "trace": Column(FLOAT, "sum over all weights, the mean over examples without prefactor"),
        "error": Column(FLOAT, "||F - E|| / ||E||, with E the exact Fisher of all examples"),
        "shape_error": Column(FLOAT, "the same after the best factor"),
        "rank_correlation": Column(FLOAT, "Spearman's, over the weights where E is not zero"),
        "backward_passes": Column(INT, "of one example or batch each"),
        "seconds": Column(FLOAT, "of the estimate", "s"),
        "epoch_seconds": Column(FLOAT, "of one training epoch", "s"),
        "wrong_drawn": Column(FLOAT, "wrong labels that `sample` drew; empty for others"),
        "equals_empirical": Column(TEXT, "whether `sample` is EMPIRICAL, number for number; empty for others"),
        **ORIGIN,
    },
}
_KEY = {"run": Column(TEXT, "lambda of the penalty and re-initialisation, e.g. c0.2_reinit"), "seed": SEED}
_PAIR = {
    **_KEY,
    "task": TASK,
    "x": Column(TEXT, "importance measure"),
    "y": Column(TEXT, "importance measure"),
    "dropped": Column(FLOAT, "share of the weights left out", FRACTION),
}
UNIFYING: dict[str, Table] = {
    "correlations.csv": {**_PAIR, "r": Column(FLOAT, "Pearson's, over the weights without those of the largest x")},
    "trimmed.csv": {
        **_PAIR,
        "by": Column(TEXT, "weights left out are those of largest |x| (size), x and -x (tails), or y (y)"),
        "r": Column(FLOAT, "Pearson's, over the others"),
    },
    "measures.csv": {
        **_KEY,
        "task": TASK,
        "measure": Column(TEXT, "importance measure"),
        "total": Column(FLOAT, "sum over the weights"),
        "largest": Column(FLOAT, "over the weights"),
        "negative": Column(FLOAT, "share of the weights where it is negative", FRACTION),
    },
    "summed.csv": {
        **_KEY,
        "task": TASK,
        "iteration": Column(INT, "steps taken in the task", "steps"),
        "si": Column(FLOAT, "sum over weights of SI's path integral so far", "nats"),
        "siu": Column(FLOAT, "the same of its unbiased half", "nats"),
        "full": Column(FLOAT, "the same along the gradient of all examples; empty where it was not taken", "nats"),
        "full_every": Column(FLOAT, "steps between two such gradients; empty: none", "steps"),
        "loss": Column(FLOAT, "of all examples where there is such a gradient, else of the next mini-batch", "nats"),
    },
    "noise.csv": {
        **_KEY,
        "iteration": Column(INT, "steps taken in the first task", "steps"),
        "noise": Column(FLOAT, "squared length of a mini-batch's gradient less that of all examples"),
        "signal": Column(FLOAT, "squared length of the gradient of all examples"),
    },
    # last: its rows are of runs whose others are there
    "networks.csv": {
        **_KEY,
        "config_id": CONFIG_ID,
        "benchmark": Column(TEXT, "name of the benchmark"),
        "model": Column(TEXT, "name of the network"),
        "lam": Column(FLOAT, "lambda of the penalty"),
        "reinit": Column(BOOL, "whether every task begins with new weights"),
        "weights": Column(INT, "of the network"),
        "examples": Column(FLOAT, "that importances were estimated on; empty: all of a task", "examples"),
        "many": Column(FLOAT, "that `af_many` was estimated on; empty: there is none", "examples"),
        "accuracy": Column(FLOAT, "mean over tasks after the last one; empty if the run diverged", FRACTION),
        "status": Column(TEXT, "ok or diverged"),
        "seconds": Column(FLOAT, "of the run and its measurements", "s"),
        **ORIGIN,
    },
}
_PLACE = {
    "x": Column(FLOAT, "coordinate in the plane", "Euclidean distance"),
    "y": Column(FLOAT, "the other coordinate", "Euclidean distance"),
}
_SOLVED = {
    "accuracy_a": Column(FLOAT, "on the first task", FRACTION),
    "accuracy_b": Column(FLOAT, "on the second task", FRACTION),
}
IDEA: dict[str, Table] = {
    "paths.csv": {
        "arm": Column(TEXT, "what the study calls the method"),
        "lambda": Column(FLOAT, "of the penalty; empty for methods without one"),
        "step": Column(INT, "of training on the second task", "steps"),
        **_PLACE,
        "off_plane": Column(FLOAT, "distance of the weights from the plane", "Euclidean distance"),
        **_SOLVED,
    },
    "plane.csv": {**_PLACE, **_SOLVED},
}
_SEARCH = {"config_id": CONFIG_ID, "arm": Column(TEXT, "what the study calls the configuration"), "seed": SEED}
SEARCH: dict[str, Table] = {
    "attempts.csv": {
        **_SEARCH,
        "task": TASK,
        "phase": Column(INT, "1: the learning rate is searched; 2: lambda"),
        "attempt": Column(INT, "from 1 on, in its phase"),
        "lr": Column(FLOAT, "learning rate"),
        "strength": Column(FLOAT, "lambda of the penalty; empty for fine-tuning"),
        "epochs": Column(INT, "trained", "epochs"),
        "accuracy": Column(FLOAT, "on the task's validation rows", FRACTION),
        "kept": Column(BOOL, "its learning rate (phase 1) or its weights (phase 2)"),
    },
    # last: its rows say which searches are there
    "final.csv": {
        **_SEARCH,
        "benchmark": Column(TEXT, "name of the benchmark"),
        "model": Column(TEXT, "name of the network"),
        "method": Column(TEXT, "name of the method"),
        "fisher": Column(TEXT, "name of the estimator; empty where the method uses none, or its own"),
        "task": Column(TEXT, "tested, from 1 on; average: the mean of the others"),
        "accuracy": Column(FLOAT, "on test rows after the last task", FRACTION),
        "status": Column(TEXT, "ok or diverged"),
        "seconds": Column(FLOAT, "of the search", "s"),
        **ORIGIN,
    },
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
    "git_sha": Column(TEXT, "commit of the code"),
    "dirty": Column(BOOL, "whether tracked files differed from the commit"),
    "hardware": Column(TEXT, "processor, cores and threads; or the CUDA device"),
    "torch": Column(TEXT, "version"),
    "date": Column(TEXT, "when, UTC"),
}
IDENTITY: Table = {
    "study": Column(TEXT, "of ours that the number belongs to"),
    "source": Column(TEXT, "publication"),
    "benchmark": Column(TEXT, "name of the benchmark"),
    "scenario": Column(TEXT, "task, domain or class"),
    "method": Column(TEXT, "name of the method"),
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
    "benchmark": Column(TEXT, "name of the benchmark"),
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


def described() -> Iterator[tuple[str, str, str, str, str, str]]:
    """A row for every column of every file: title of its group, file, column, type, unit, meaning."""
    for title, files in GROUPS.items():
        for file, columns in files.items():
            for name, column in columns.items():
                yield title, file, name, column.type, column.unit, column.meaning
