"""The two-phase search: with invented accuracies, against plain loops, and on a made Tiny ImageNet."""

import csv
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli
import made_tiny_imagenet
import pytest
import torch
from made_experiments import digits, made_experiment, run, thinned
from made_trees import error, positive, same, tree
from torch.nn import functional

from cl_repro.benchmarks.hold_out import hold_out
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.boundary import evaluate
from cl_repro.engine.stack import start
from cl_repro.importance import fisher
from cl_repro.measurements import program, strength_search
from cl_repro.measurements.strength_search import training
from cl_repro.measurements.strength_search.folder import searched, settings_of
from cl_repro.measurements.strength_search.procedure import (
    Attempt,
    Found,
    Patience,
    Rules,
    Trial,
    search,
    until_stalled,
)
from cl_repro.measurements.strength_search.training import Learner, scaled, stack_of, trained
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.methods.l2 import l2, magnitude
from cl_repro.methods.quadratic import quadratic
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import si, sib, siu
from cl_repro.records.measured import SEARCH
from cl_repro.study import study
from cl_repro.types import Method, Needs

# --- the procedure, with invented accuracies ------------------------------------------------------------------------


def found(
    tuned: dict[float, float], with_method: Sequence[float], strength: float = 8.0, **rules: Any
) -> tuple[Found[str], list[tuple[float, float]]]:
    """The search from "start" with these accuracies, by learning rate and by attempt; and what it trained with."""
    asked: list[tuple[float, float]] = []

    def tune(start: str, lr: float) -> Trial[str]:
        assert start == "start"
        return Trial(f"tuned at {lr}", tuned[lr], 3)

    def train(start: str, lr: float, c: float) -> Trial[str]:
        assert start == "start"
        asked.append((lr, c))
        return Trial(f"attempt {len(asked)}", with_method[len(asked) - 1], 7)

    return search("start", strength, list(tuned), tune, train, Rules(**rules)), asked


@pytest.mark.parametrize(
    ("with_method", "strengths", "afterwards"),
    [
        ([0.9], [8.0], 8.0),
        ([0.40], [8.0], 8.0),  # 0.8 of 0.5, exactly
        ([0.3995, 0.5], [8.0, 4.0], 4.0),
        ([0.1, 0.1, 0.2, 0.45], [8.0, 4.0, 2.0, 1.0], 1.0),
        ([0.1] * 9 + [0.45], [8.0 / 2**i for i in range(10)], 8.0 / 2**9),
        ([0.1] * 10, [8.0 / 2**i for i in range(10)], 8.0 / 2**10),  # not enough to the end: the last one is kept
    ],
)
def test_the_strength_is_halved_until_four_fifths_are_reached(with_method, strengths, afterwards):
    result, asked = found({0.1: 0.3, 0.01: 0.5, 0.001: 0.45}, with_method)
    assert asked == [(0.01, c) for c in strengths]
    assert result.end == f"attempt {len(strengths)}"
    assert result.strength == afterwards
    assert result.attempts == [
        Attempt(1, 1, 0.1, None, 3, 0.3, kept=False),
        Attempt(1, 2, 0.01, None, 3, 0.5, kept=True),
        Attempt(1, 3, 0.001, None, 3, 0.45, kept=False),
        *(Attempt(2, i, 0.01, c, 7, with_method[i - 1], kept=i == len(strengths)) for i, c in enumerate(strengths, 1)),
    ]


def test_an_accuracy_at_the_margin_is_enough_whatever_the_floats_say():
    """Of 2000 examples, A* = n / 2000 may lose a fifth, and not one example more; 0.8 * 0.75 > 0.6 in floats."""
    for n in range(1, 2001):
        needed = -(-4 * n // 5)
        for right, attempts in ((needed, 1), (needed - 1, 2)):
            assert len(found({1.0: n / 2000}, [right / 2000, 1.0])[1]) == attempts


def test_where_fine_tuning_learns_nothing_nothing_is_asked_for():
    assert len(found({1.0: 0.0}, [0.0])[1]) == 1


def test_margin_factor_and_attempts_are_rules():
    result, asked = found({0.1: 0.5}, [0.26, 0.26, 0.26], margin=0.4, factor=0.1, attempts=3)
    assert [c for _, c in asked] == pytest.approx([8, 0.8, 0.08])
    assert result.strength == pytest.approx(0.008)
    assert len(found({0.1: 0.5}, [0.26], margin=0.5)[1]) == 1


def test_of_equal_learning_rates_the_first_is_taken():
    assert found({0.1: 0.4, 0.05: 0.5, 0.01: 0.5}, [0.5])[1] == [(0.05, 8.0)]


@pytest.mark.parametrize(
    ("accuracies", "rates", "kept", "accuracy"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1, 1, 1, 1, 1, 1], 6, 0.6),  # six at most
        ([0.3, 0.2, 0.3, 0.1, 0.4, 0.4], [1, 1, 1, 0.1, 0.1, 0.1], 5, 0.4),  # an equal is no new best; slow once
        ([0.5, 0.1, 0.1, 0.1, 0.1], [1, 1, 1, 0.1, 0.1], 1, 0.5),  # the end after four
        ([0.0, 0.0, 0.0, 0.0], [1, 1, 0.1, 0.1], 0, 0.0),  # nothing right: the start
        ([0.5, 0.6, math.nan], [1, 1, 1], 2, 0.6),
        ([math.nan], [1], 0, 0.0),
        ([0.1, 0.0, 0.0, 0.2, 0.1, 0.1], [1, 1, 1, 0.1, 0.1, 0.1], 4, 0.2),  # stalls twice, slows once
    ],
)
def test_training_slows_once_stops_when_stalled_and_goes_back_to_its_best(accuracies, rates, kept, accuracy):
    asked: list[float] = []

    def epoch(lr: float) -> float:
        asked.append(lr)
        return accuracies[len(asked) - 1]

    patience = Patience(epochs=6, slow_after=2, slower=0.1, stop_after=4)
    result = until_stalled(0, 1.0, epoch, lambda: len(asked), patience)
    assert asked == rates
    assert result == Trial(kept, accuracy, len(rates))


def test_the_published_rules():
    """De Lange et al., as the protocol has them."""
    assert Rules() == ((1e-1, 5e-2, 1e-2, 5e-3, 1e-3, 5e-4, 1e-4), (1e-2, 5e-3, 1e-3, 5e-4, 1e-4), 0.2, 0.5, 10)
    assert Patience() == (70, 5, 0.1, 10)


# --- the strength of a method ---------------------------------------------------------------------------------------


def after_two_tasks(method: Method, lam: float) -> Any:
    """The state of a method that has seen two tasks of one step each."""
    state = method.init(tree(0), torch.tensor(lam, dtype=torch.float64))
    for k in (1, 2):
        state = method.start_task(state, tree(10 * k)) if method.start_task else state
        if method.observe:
            gradients = {name: tree(10 * k + i) for i, name in enumerate(method.needs.gradients, 1)}
            state = method.observe(state, gradients, {n: -v for n, v in tree(10 * k + 1).items()})
        state = method.end_task(state, tree(10 * k + 5), positive(10 * k + 6))
    return state


@pytest.mark.parametrize(
    "method",
    [ewc(), ewc(0.5), ewc_offline(), quadratic(), l2(), l2("linear"), magnitude(), si(0.1), siu(0.1), sib(0.1), sos()],
)
def test_a_scaled_penalty_is_that_of_the_method_at_that_strength(method):
    one, own = after_two_tasks(method, 1.0), after_two_tasks(method, 37.0)
    expected = method.penalty_grad(own, tree(99))
    assert error(scaled(method, 37.0).penalty_grad(one, tree(99)), expected) < 1e-12
    assert max(p.abs().max() for p in expected.values()) > 0
    assert scaled(finetune(), 37.0) == finetune()


# --- one training, against a plain loop -----------------------------------------------------------------------------

SEED = 3


@lru_cache
def made(**changes: Any) -> Experiment:
    """Two tasks of the digits with validation rows, an MLP in float64, SGD with momentum."""
    benchmark = hold_out(digits(), 0.25)._replace(n_tasks=2)
    whole = benchmark.curriculum

    def first_two(seed: int) -> Any:
        curriculum = whole(seed)
        return curriculum._replace(tasks=curriculum.tasks[:2])

    return made_experiment(
        benchmark._replace(curriculum=first_two),
        optimiser=partial(torch.optim.SGD, lr=123.0, momentum=0.9),
        reset_optimiser=True,
        iterations=1,
        **changes,
    )


def begun(experiment: Experiment) -> Learner:
    stack = start(experiment, [SEED])
    return Learner(stack.params, stack.buffers, None)


def plain(experiment: Experiment, task: int, lr: float, patience: Patience, pull: float) -> tuple[Any, list[float]]:
    """Momentum by hand, with a pull towards zero: best weights, and the accuracy after every epoch."""
    curriculum = experiment.benchmark.curriculum(SEED)
    own, classes = curriculum.tasks[task], sorted(curriculum.tasks[task].classes)
    x, y = experiment.benchmark.x.double() / 16, curriculum.y
    steps = len(own.rows) // 16
    order = rng.batches(rng.stream(SEED, "order", task), len(own.rows), 16, patience.epochs * steps)
    params = {name: p.double() for name, p in experiment.net.init(rng.stream(SEED, "init"))[0].items()}
    velocity = {name: torch.zeros_like(p) for name, p in params.items()}
    accuracies: list[float] = []
    best, slowed = params, False
    for epoch in range(patience.epochs):
        for batch in order[epoch * steps : (epoch + 1) * steps]:
            rows = own.rows[batch]
            leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
            label = torch.tensor([classes.index(c) for c in y[rows].tolist()])
            loss = functional.cross_entropy(experiment.net.apply(leaves, {}, x[rows])[0][:, classes], label)
            for name, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
                velocity[name] = 0.9 * velocity[name] + g + pull * params[name]
                params = params | {name: params[name] - lr * velocity[name]}
        z = experiment.net.apply(params, {}, x[own.rows_val])[0][:, classes]
        right = [classes[i] == c for i, c in zip(z.argmax(1).tolist(), y[own.rows_val].tolist(), strict=True)]
        accuracies.append(sum(right) / len(right))
        since = len(accuracies) - 1 - accuracies.index(max(accuracies))
        best = params if since == 0 else best
        if since == patience.stop_after:
            break
        if since == patience.slow_after and not slowed:
            lr, slowed = lr * patience.slower, True
    return best, accuracies


@pytest.mark.parametrize("pull", [0.0, 0.05])
def test_a_training_is_the_plain_loop_with_early_stopping(pull):
    experiment, patience = made(), Patience(epochs=12, slow_after=1, slower=0.3, stop_after=3)
    method = Method(penalty_grad=lambda state, params: {n: state * p for n, p in params.items()})
    learner = begun(experiment)._replace(state=torch.tensor(1.0, dtype=torch.float64))
    before = {name: p.clone() for name, p in learner.params.items()}
    trial = trained(experiment, SEED, 1, patience, learner, 0.4, scaled(method, pull))
    best, accuracies = plain(experiment, 1, 0.4, patience, pull)
    assert trial.epochs == len(accuracies)
    assert trial.accuracy == max(accuracies)
    assert error({name: p[0] for name, p in trial.end.params.items()}, best) < 1e-9
    assert accuracies.index(max(accuracies)) + 1 < len(accuracies) < 12, "it stopped, and went back"
    assert same(learner.params, before)
    again = trained(experiment, SEED, 1, patience, learner, 0.4, scaled(method, pull))
    assert same(again.end.params, trial.end.params)


def test_the_state_of_a_method_is_that_of_the_best_epoch():
    experiment, learner = made(), begun(made())
    counting = Method(
        start_task=lambda state, params: 0,
        observe=lambda state, seen, change: state + 1,
        needs=Needs(gradients=("batch",)),
    )
    patience = Patience(epochs=12, slow_after=1, slower=0.3, stop_after=3)
    steps = len(experiment.benchmark.curriculum(SEED).tasks[1].rows) // 16
    _, accuracies = plain(experiment, 1, 0.4, patience, 0.0)
    trial = trained(experiment, SEED, 1, patience, learner, 0.4, counting)
    assert trial.end.state == steps * (accuracies.index(max(accuracies)) + 1) < steps * trial.epochs


def test_a_training_that_diverges_leaves_the_start():
    learner = begun(made())
    trial = trained(made(), SEED, 0, Patience(), learner, 1e300, finetune())
    assert trial == Trial(learner, 0.0, 1)


# --- all tasks ------------------------------------------------------------------------------------------------------

ONE_EPOCH = Rules(rates_first=[0.1], rates=[0.1], margin=0.999)  # what is left of the search: one attempt a task


@pytest.mark.parametrize("method", [si(0.1), sos(1.0), ewc(), ewc_offline(), joint(), finetune()])
def test_without_a_choice_the_search_is_the_engines_run(method):
    """One learning rate, one epoch, hardly any accuracy asked for; tasks of equally many rows."""
    experiment = made()._replace(benchmark=thinned(made().benchmark, 96))
    estimator = fisher.exact() if method in (ewc(), ewc_offline()) or not method.observe else None
    estimator = estimator if method.end_task and not method.observe else None
    outcome = training.search_all_tasks(experiment, method, estimator, SEED, 7.0, ONE_EPOCH, Patience(epochs=1))
    twice = method.needs.all_tasks  # joint: an epoch of the second step is one of both tasks
    usual = experiment._replace(
        optimiser=partial(torch.optim.SGD, lr=0.1, momentum=0.9), iterations=[6, 12 if twice else 6]
    )
    expected = run(usual, method, [Replica(SEED, 7.0, estimator)]).outcomes[0]
    assert outcome.accuracy.tolist() == expected.accuracy[-1].tolist()
    assert [one.accuracy for rows in outcome.attempts for one in rows if one.phase == 2] == [
        expected.validation[k + 1, k] for k in range(2)
    ]
    assert all(len(rows) == 2 for rows in outcome.attempts)
    assert outcome.finite


def test_a_strength_that_is_too_large_is_halved_and_carried_over(monkeypatch):
    """Five tasks, invented: strengths above 3 cost half of the accuracy, in the fourth task those above 0.6."""
    asked: list[tuple[int, float]] = []

    def invented(
        experiment: Any, seed: int, task: int, patience: Any, start: Learner, lr: float, method: Method
    ) -> Any:
        pull = method.penalty_grad(start.state, {"w": torch.ones(())})["w"].item() if method.penalty_grad else None
        if pull is None:
            return Trial(start, 0.9 if lr == (0.1 if task == 0 else 0.01) else 0.5, 1)
        asked.append((task, pull))
        return Trial(start, 0.45 if pull > (0.6 if task == 3 else 3) else 0.8, 1)

    monkeypatch.setattr(training, "trained", invented)
    experiment = made_experiment(hold_out(digits(), 0.25))
    method = Method(init=lambda params, lam: lam, penalty_grad=lambda state, params: {"w": state * params["w"]})
    outcome = training.search_all_tasks(experiment, method, None, SEED, 10.0, Rules(), Patience())
    assert asked == [
        (0, 10),
        (0, 5),
        (0, 2.5),
        (1, 2.5),
        (2, 2.5),
        (3, 2.5),
        (3, 1.25),
        (3, 0.625),
        (3, 0.3125),
        (4, 0.3125),
    ]
    assert [rows[-1].lr for rows in outcome.attempts] == [0.1, 0.01, 0.01, 0.01, 0.01]
    assert [sum(one.phase == 1 for one in rows) for rows in outcome.attempts] == [7, 5, 5, 5, 5]


def test_a_real_penalty_is_lowered_until_the_second_task_is_learned():
    rules = Rules(rates_first=[0.1, 0.01], rates=[0.1, 0.01], margin=0.1, factor=0.01)
    patience = Patience(epochs=4, slow_after=2, stop_after=3)
    outcome = training.search_all_tasks(made(), l2("linear"), None, SEED, 1e4, rules, patience)
    first, second = outcome.attempts
    tuned = [max(one.accuracy for one in rows if one.phase == 1) for rows in outcome.attempts]
    assert [one.attempt for one in first if one.phase == 2] == [1]
    assert first[-1].accuracy == tuned[0], "no penalty pulls yet: it is the fine-tuning"
    tried = [one for one in second if one.phase == 2]
    assert len(tried) > 2
    assert all(b.strength == pytest.approx(0.01 * a.strength) for a, b in pairwise(tried))
    assert [one.accuracy >= 0.9 * tuned[1] for one in tried] == [False] * (len(tried) - 1) + [True]
    assert [one.kept for one in tried] == [False] * (len(tried) - 1) + [True]


def test_the_accuracies_at_the_end_are_those_of_what_was_kept(monkeypatch):
    kept: list[Learner] = []
    real = training.search

    def noted(*arguments: Any) -> Any:
        result = real(*arguments)
        kept.append(result.end)
        return result

    monkeypatch.setattr(training, "search", noted)
    outcome = training.search_all_tasks(made(), ewc(), fisher.exact(), SEED, 100.0, ONE_EPOCH, Patience(epochs=3))
    expected = evaluate(made(), stack_of(made(), SEED, kept[-1]), 1)
    assert outcome.accuracy.tolist() == expected[0].tolist()
    assert len(kept) == 2


# --- the files ------------------------------------------------------------------------------------------------------

TINY = (
    "benchmark.n_tasks=2", "model.hidden=[5]", "method=si", "optim=sgd_momentum", "lam=0.5", "val_fraction=0.2",
    "+benchmark.protocol.search.epochs=2", "+benchmark.protocol.search.rates=[0.1]",
    "+benchmark.protocol.search.rates_first=[0.1,0.01]",
)  # fmt: skip


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SEARCH}


def test_a_folder_is_completed_never_done_again_and_refused_when_edited(tmp_path):
    write = partial(program.measure_missing, strength_search.PROGRAM, [*TINY, "seeds=[1]", f"results_dir={tmp_path}"])
    folder = write()
    assert folder == tmp_path / "strength_search_split_digits"
    attempts, final, first = read(folder, "attempts.csv"), read(folder, "final.csv"), contents(folder)
    assert [(row["task"], row["phase"], row["lr"]) for row in attempts[:2]] == [("1", "1", "0.1"), ("1", "1", "0.01")]
    assert [row["kept"] for row in attempts if row["phase"] == "2" and row["task"] == "1"] == ["True"]
    assert {row["strength"] for row in attempts if row["phase"] == "1"} == {""}
    assert next(row["strength"] for row in attempts if row["phase"] == "2") == "0.5"
    assert [row["task"] for row in final] == ["1", "2", "average"]
    accuracies = [float(row["accuracy"]) for row in final]
    assert accuracies[2] == pytest.approx(sum(accuracies[:2]) / 2, rel=1e-5)
    assert {(row["arm"], row["seed"], row["status"], row["method"]) for row in final} == {("si", "1", "ok", "si")}
    assert write() == folder
    assert contents(folder) == first
    program.measure_missing(strength_search.PROGRAM, [*TINY, "seeds=[1,2]", f"results_dir={tmp_path}"])
    program.measure_missing(strength_search.PROGRAM, [*TINY, "seeds=[1]", "lam=0.7", f"results_dir={tmp_path}"])
    for name, content in contents(folder).items():
        assert content.startswith(first[name])
    final = read(folder, "final.csv")
    assert [row["seed"] for row in final] == ["1"] * 3 + ["2"] * 3 + ["1"] * 3
    assert len({row["config_id"] for row in final}) == 2
    path = folder / "attempts.csv"
    path.write_text(path.read_text().replace("0.1", "0.2", 1))
    with pytest.raises(UserError, match=r"attempts\.csv: edited since the run wrote it"):
        write()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=finetune", "method.uses_lambda=true"],
            "method=finetune: its lambda is not that of a penalty, which is what is searched",
        ),
        (["val_fraction=null"], "benchmark=split_digits: the search needs validation rows; set val_fraction=0.2, or"),
        (["~lam", "grid=blog"], "grid: this program takes one lambda, lam; choose grid=one"),
        (["+benchmark.protocol.search.rate=1"], "benchmark.protocol.search.rate: unknown key; allowed: rates_first, "),
        (["benchmark.protocol.search.epochs=0"], "search.epochs=0: must be an integer of at least 1$"),
        (["+benchmark.protocol.search.margin=1"], "search.margin=1: must be a number between 0 and 1$"),
        (["benchmark.protocol.search.rates=[]"], r"search.rates=\[\]: must be a list of finite numbers above 0$"),
    ],
)
def test_bad_settings_are_refused_and_leave_no_folder(overrides, message, tmp_path):
    given = [one for one in TINY if not (one.startswith("lam") and "~lam" in overrides)]
    with pytest.raises(UserError, match=message):
        program.measure_missing(
            strength_search.PROGRAM,
            [*given, *(o for o in overrides if o != "~lam"), "seeds=[1]", f"results_dir={tmp_path}"],
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        (["method=gpm", "optim=sgd"], "project, project_input, inspect, inspects"),
        (["method=ogd", "optim=sgd"], "project, inspect, inspects"),
        (["method=lwf", "method.warm_up=3"], "loss, teacher, warm_up"),
        (["method=ewc_guide", "method.rebuild_every=5"], "rebuild_every"),
        (["method=replay"], "loss, memory"),
        (["method=context"], "inspect, predict, hidden, inspects"),
    ],
)
def test_a_method_of_which_something_would_be_left_out_is_refused_by_name(overrides, left_out, tmp_path):
    with pytest.raises(UserError, match=f"{overrides[0]}: this program does not run its {left_out}, without which"):
        program.measure_missing(strength_search.PROGRAM, [*TINY, *overrides, "seeds=[1]", f"results_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_study_is_refused(tmp_path):
    own = [one for one in TINY if not one.startswith("+")]
    folder = study.compute_missing(
        cli.arms(*own, "iterations=1", "seeds=[1]", f"results_dir={tmp_path}"), "made", cores=1
    ).folder
    with pytest.raises(UserError, match="is the folder of a study; set name="):
        program.measure_missing(
            strength_search.PROGRAM, [*TINY, "seeds=[1]", f"name={folder.name}", f"results_dir={tmp_path}"]
        )


# --- Tiny ImageNet --------------------------------------------------------------------------------------------------

TABLE_2 = "study=tiny_imagenet_search"


def test_the_whole_search_on_a_made_tiny_imagenet(tmp_path, monkeypatch):
    made_tiny_imagenet.write(monkeypatch, tmp_path / "data")
    arms = (
        "arms=[{model.variant: small, method: si, lam: 400.0},"
        "{model.variant: base, method: ewc, fisher: batched, fisher.reduction: sum, lam: 4.0}]"
    )
    folder = program.measure_missing(
        strength_search.PROGRAM,
        [TABLE_2, "scale=smoke", arms, "seeds=[1]", f"data_dir={tmp_path / 'data'}", f"results_dir={tmp_path}"],
    )
    assert folder.name == "tiny_imagenet_search_smoke"
    final, attempts = read(folder, "final.csv"), read(folder, "attempts.csv")
    assert [(row["arm"], row["task"]) for row in final] == [
        (arm, task) for arm in ("si", "ewc-batched") for task in ("1", "2", "average")
    ]
    assert {row["status"] for row in final} == {"ok"}
    for arm, strength in (("si", 400), ("ewc-batched", 4)):
        own = [row for row in attempts if row["arm"] == arm]
        assert [row["lr"] for row in own if (row["task"], row["phase"]) == ("1", "1")] == ["0.1", "0.01"]
        assert float(next(row["strength"] for row in own if row["phase"] == "2")) == strength
        assert all(0 <= float(row["accuracy"]) <= 1 and int(row["epochs"]) <= 2 for row in own)
    assert (folder / "provenance.json").exists()
    assert len(list((folder / "configs").iterdir())) == 2


def test_the_study_is_the_published_protocol():
    (cfg,) = cli.arms(TABLE_2, "scale=paper", "arms=[{method: si, lam: 400.0}]")
    assert settings_of(cfg) == {
        "rates_first": [0.1, 0.05, 0.01, 0.005, 0.001, 0.0005, 0.0001], "rates": [0.01, 0.005, 0.001, 0.0005, 0.0001],
        "margin": 0.2, "factor": 0.5, "attempts": 10, "epochs": 70, "slow_after": 5, "slower": 0.1, "stop_after": 10,
    }  # fmt: skip
    assert (cfg["batch_size"], cfg["optim"]["momentum"], cfg["method"]["xi"]) == (200, 0.9, 0.001)
    assert cfg["benchmark"]["n_tasks"] == 10 and cfg["benchmark"]["train_per_task"] is None
    assert cfg["benchmark"]["validation"] is True and cfg["model"]["shrink"] == 1
    assert cfg["seeds"] == [1, 2, 3] and not cfg["reinit"]


@pytest.mark.slow
def test_the_arms_of_table_2():
    cfgs = cli.arms(TABLE_2, "scale=paper")
    assert [cfg["label"] for cfg in cfgs] == [
        f"{method}-{model}" for model in ("small", "base", "wide", "deep") for method in ("si", "sos", "ewc", "mas")
    ]
    assert all(cfg["model"]["variant"] == cfg["label"].split("-")[1] for cfg in cfgs)
    assert {cfg["label"].split("-")[0]: cfg["lam"] for cfg in cfgs} == {"si": 400, "sos": 1e4, "ewc": 4, "mas": 3}
    assert len({searched(cfg).config_id for cfg in cfgs}) == 16
