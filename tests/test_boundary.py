"""Evaluation against a loop over test examples, and importances of stacks."""

from unittest import mock

import pytest
import torch
from made_experiments import digits, made_experiment, run
from made_trees import error, single

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.engine import Experiment, Replica, Stack, boundary
from cl_repro.engine.stack import start
from cl_repro.importance import fisher
from cl_repro.importance.by_score import by_score
from cl_repro.importance.one_sample import one_sample
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.ewc import ewc

N_TASKS = 5


def logits(experiment: Experiment, stack: Stack, k: int, asked: int) -> list[list[float]]:
    """Of replica k on the test examples of a task, one by one."""
    params = {name: p[k] for name, p in stack.params.items()}
    rows = experiment.benchmark.curriculum(stack.seeds[k]).tasks[asked].rows_test.tolist()
    x = experiment.benchmark.x_test
    return [experiment.net.apply(params, {}, x[row][None].double() / 16)[0][0].tolist() for row in rows]


def counted(
    experiment: Experiment, seed: int, z_of_rows: list[list[float]], trained: int, asked: int, scenario: str
) -> float:
    """Accuracy on task `asked`, example by example, the three scenarios spelt out."""
    curriculum = experiment.benchmark.curriculum(seed)
    task = curriculum.tasks[asked]
    own = sorted(task.classes)
    seen = sorted(c for t in range(trained + 1) for c in curriculum.tasks[t].classes)
    candidates = {"task": own, "domain": [0, 1], "class_": seen}[scenario]
    right = 0
    for row, z in zip(task.rows_test.tolist(), z_of_rows, strict=True):
        guess = max(candidates, key=lambda c, z=z: z[c])
        label = int(curriculum.y_test[row])
        right += guess == (own.index(label) if scenario == "domain" else label)
    return right / len(task.rows_test)


@pytest.mark.parametrize("scenario", ["task", "domain", "class_"])
@pytest.mark.parametrize("rows_per_pass", [7, 1000])
def test_accuracy_is_counted_example_by_example(scenario, rows_per_pass):
    experiment = made_experiment(scenario=getattr(scenarios, scenario)(), rows_per_pass=rows_per_pass, iterations=30)
    for seeds in ([2], [3, 1, 3]):
        stack = run(experiment, joint(), [Replica(seed, 0.0, None) for seed in seeds]).stack
        z = [[logits(experiment, stack, k, asked) for asked in range(N_TASKS)] for k in range(len(seeds))]
        for trained in (0, 2, N_TASKS - 1):
            found = boundary.evaluate(experiment, stack, trained)
            assert found.shape == (len(seeds), N_TASKS)
            for k, seed in enumerate(seeds):
                for asked in range(N_TASKS):
                    assert found[k, asked] == counted(experiment, seed, z[k][asked], trained, asked, scenario)
        assert len(set(found.flatten().tolist())) > len(seeds)  # or the test shows little


def test_the_matrix_starts_untrained_and_ends_with_the_final_network():
    experiment = made_experiment()
    rows = [Replica(seed, 0.0, None) for seed in (2, 1)]
    found = run(experiment, finetune(), rows)
    final = boundary.evaluate(experiment, found.stack, N_TASKS - 1)
    for k, row in enumerate(rows):
        matrix = found.outcomes[k].accuracy
        assert matrix.shape == (N_TASKS + 1, N_TASKS)
        assert (matrix[0] == boundary.evaluate(experiment, start(experiment, [row.seed]), 0)[0]).all()
        assert (matrix[-1] == final[k]).all()


def test_in_the_class_scenario_unseen_classes_are_never_guessed():
    experiment = made_experiment(scenario=scenarios.class_())
    matrix = run(experiment, finetune(), [Replica(1, 0.0, None)]).outcomes[0].accuracy
    for trained in range(N_TASKS):
        assert (matrix[trained + 1, trained + 1 :] == 0).all()
    assert matrix[1, 0] > 0.5


@pytest.mark.parametrize("scenario", ["task", "domain", "class_"])
def test_stacked_importances_are_the_singles(scenario):
    """Seeds and estimators mixed; one of the estimators takes one replica at a time."""
    experiment = made_experiment(scenario=getattr(scenarios, scenario)())
    stack = start(experiment, [2, 1, 2, 1, 2, 1])
    for k in range(6):  # replicas of a seed are equal at the start
        for value in stack.params.values():
            value[k] *= 1 + k
    exact, slow = fisher.exact(), one_sample("true", 20)
    estimators = [exact, slow, exact, fisher.sample(), exact, slow]
    found = boundary.measure(experiment, stack, 1, estimators)
    for k, estimator in enumerate(estimators):
        params = {name: p[k : k + 1] for name, p in stack.params.items()}
        expected = boundary.estimate(experiment, params, {}, estimator, stack.seeds[k], 1)
        assert error(single(found, k), expected) < 1e-12


@pytest.mark.parametrize("scenario", ["task", "domain", "class_"])
def test_a_pass_sees_the_logits_and_labels_the_task_was_trained_with(scenario):
    experiment = made_experiment(scenario=getattr(scenarios, scenario)())
    curriculum = digits().curriculum(1)
    spy = mock.Mock(side_effect=lambda net, params, *rest: {name: torch.ones_like(p) for name, p in params.items()})
    estimator = fisher.exact()._replace(sum=spy)
    params = start(experiment, [1]).params
    for task in range(N_TASKS):
        spy.reset_mock()
        boundary.estimate(experiment, params, {}, estimator, 1, task)
        own = sorted(curriculum.tasks[task].classes)
        seen = sorted(c for t in range(task + 1) for c in curriculum.tasks[t].classes)
        active = {"task": own, "domain": [0, 1], "class_": seen}[scenario]
        y = torch.cat([call.args[4] for call in spy.call_args_list])
        x = torch.cat([call.args[3] for call in spy.call_args_list])
        rows = curriculum.tasks[task].rows
        assert len(y) == len(rows)
        for call in spy.call_args_list:
            assert call.args[6].tolist() == active
        # examples are shuffled: find each by its picture
        known = zip(digits().x[rows], curriculum.y[rows], strict=True)
        pictures = {tuple(picture.flatten().tolist()): int(label) for picture, label in known}
        for picture, position in zip(x, y.tolist(), strict=True):
            label = pictures[tuple((16 * picture).flatten().int().tolist())]
            assert active[position] == (own.index(label) if scenario == "domain" else label)


def test_a_pass_draws_examples_labels_and_choices_from_streams_of_its_seed_and_task():
    experiment = made_experiment()
    benchmark, params = experiment.benchmark, start(experiment, [1]).params
    ones = mock.Mock(side_effect=lambda net, params, *rest: {name: torch.ones_like(p) for name, p in params.items()})
    first, scored = fisher.sample(9)._replace(sum=ones), by_score(9)
    assert scored.choice
    pick = mock.Mock(side_effect=scored.choice.pick)
    chosen = scored._replace(sum=ones, choice=scored.choice._replace(pick=pick))
    for task in (0, 3):
        rows = benchmark.curriculum(1).tasks[task].rows
        order = torch.randperm(len(rows), generator=rng.stream(1, "fisher_order", task))[:9]
        noise = torch.rand(len(rows), generator=rng.stream(1, "fisher_labels", task), dtype=torch.float64)
        boundary.estimate(experiment, params, {}, first, 1, task)
        x, noise_given = (ones.call_args.args[i] for i in (3, 5))
        assert torch.equal(x, benchmark.to_input(benchmark.x[rows[order]]))
        assert torch.equal(noise_given, noise[order])
        boundary.estimate(experiment, params, {}, chosen, 1, task)
        u = torch.rand((), generator=rng.stream(1, "fisher_choice", task), dtype=torch.float64)
        assert torch.equal(pick.call_args.args[1], u)


def test_traces_are_the_importances_sums_after_every_task_but_the_last():
    experiment = made_experiment()
    estimator = fisher.exact()
    states = []
    method = ewc()
    watched = method._replace(end_task=lambda state, params, f: states.append(f) or method.end_task(state, params, f))
    outcome = run(experiment, watched, [Replica(1, 1.0, estimator)]).outcomes[0]
    assert outcome.traces == pytest.approx([sum(float(v.sum()) for v in f.values()) for f in states], rel=1e-14)
    assert len(outcome.traces) == N_TASKS - 1
