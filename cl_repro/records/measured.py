"""What the measurements beside a study write: the columns of their CSVs. As `schema`, which has those of a study."""

from cl_repro.records.columns import BOOL, FLOAT, FRACTION, INT, ORIGIN, TEXT, Column, Table, usual

TASK = Column(INT, "task, from 1 on")
NETWORK = usual("config_id", "benchmark", "model", "seed")
ESTIMATE = {
    **NETWORK,
    "estimator": Column(TEXT, "name of the estimator"),
    "n": Column(FLOAT, "examples it was asked to use; empty: all", "examples"),
    "repeat": Column(INT, "of the same estimate with other draws, from 0 on"),
}
ANATOMY: dict[str, Table] = {
    "layers.csv": {
        **ESTIMATE,
        "layer": Column(TEXT, "name of the layer"),
        "share": Column(FLOAT, "of the trace that lies in the layer", FRACTION),
    },
    "confidence.csv": {
        **NETWORK,
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
        **usual(*ORIGIN),
    },
    "anatomy.csv": {
        **ESTIMATE,
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
        **usual(*ORIGIN),
    },
}
KEY = {"run": Column(TEXT, "lambda of the penalty and re-initialisation, e.g. c0.2_reinit"), **usual("seed")}
PAIR = {
    **KEY,
    "task": TASK,
    "x": Column(TEXT, "importance measure"),
    "y": Column(TEXT, "importance measure"),
    "dropped": Column(FLOAT, "share of the weights left out", FRACTION),
}
UNIFYING: dict[str, Table] = {
    "correlations.csv": {**PAIR, "r": Column(FLOAT, "Pearson's, over the weights without those of the largest x")},
    "trimmed.csv": {
        **PAIR,
        "by": Column(TEXT, "weights left out are those of largest |x| (size), x and -x (tails), or y (y)"),
        "r": Column(FLOAT, "Pearson's, over the others"),
    },
    "measures.csv": {
        **KEY,
        "task": TASK,
        "measure": Column(TEXT, "importance measure"),
        "total": Column(FLOAT, "sum over the weights"),
        "largest": Column(FLOAT, "over the weights"),
        "negative": Column(FLOAT, "share of the weights where it is negative", FRACTION),
    },
    "summed.csv": {
        **KEY,
        "task": TASK,
        "iteration": Column(INT, "steps taken in the task", "steps"),
        "si": Column(FLOAT, "sum over weights of SI's path integral so far", "nats"),
        "siu": Column(FLOAT, "the same of its unbiased half", "nats"),
        "full": Column(FLOAT, "the same along the gradient of all examples; empty where it was not taken", "nats"),
        "full_every": Column(FLOAT, "steps between two such gradients; empty: none", "steps"),
        "loss": Column(FLOAT, "of all examples where there is such a gradient, else of the next mini-batch", "nats"),
    },
    "noise.csv": {
        **KEY,
        "iteration": Column(INT, "steps taken in the first task", "steps"),
        "noise": Column(FLOAT, "squared length of a mini-batch's gradient less that of all examples"),
        "signal": Column(FLOAT, "squared length of the gradient of all examples"),
    },
    # last: its rows are of runs whose others are there
    "networks.csv": {
        **KEY,
        **usual("config_id", "benchmark", "model"),
        "lam": Column(FLOAT, "lambda of the penalty"),
        "reinit": Column(BOOL, "whether every task begins with new weights"),
        "weights": Column(INT, "of the network"),
        "examples": Column(FLOAT, "that importances were estimated on; empty: all of a task", "examples"),
        "many": Column(FLOAT, "that `af_many` was estimated on; empty: there is none", "examples"),
        **usual("accuracy", "status"),
        "seconds": Column(FLOAT, "of the run and its measurements", "s"),
        **usual(*ORIGIN),
    },
}
PLACE = {
    "x": Column(FLOAT, "coordinate in the plane", "Euclidean distance"),
    "y": Column(FLOAT, "the other coordinate", "Euclidean distance"),
}
SOLVED = {
    "accuracy_a": Column(FLOAT, "on the first task", FRACTION),
    "accuracy_b": Column(FLOAT, "on the second task", FRACTION),
}
IDEA: dict[str, Table] = {
    "paths.csv": {
        "arm": Column(TEXT, "what the study calls the method"),
        **usual("lambda"),
        "step": Column(INT, "of training on the second task", "steps"),
        **PLACE,
        "off_plane": Column(FLOAT, "distance of the weights from the plane", "Euclidean distance"),
        **SOLVED,
    },
    "plane.csv": {**PLACE, **SOLVED},
}
ATTEMPT = usual("config_id", "arm", "seed")
SEARCH: dict[str, Table] = {
    "attempts.csv": {
        **ATTEMPT,
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
        **ATTEMPT,
        **usual("benchmark", "model", "method", "fisher"),
        "task": Column(TEXT, "tested, from 1 on; average: the mean of the others"),
        "accuracy": Column(FLOAT, "on test rows after the last task", FRACTION),
        **usual("status"),
        "seconds": Column(FLOAT, "of the search", "s"),
        **usual(*ORIGIN),
    },
}
