"""Attention over a window of stored examples: predictions against a plain loop, and what falls out of the window."""

import math

import pytest
import torch
from made_experiments import digits, first_tasks, made_experiment, run, thinned
from made_trees import same
from torch.nn import functional

from cl_repro.benchmarks import scenarios
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.common.tree import at
from cl_repro.engine import Experiment, Replica
from cl_repro.methods.baselines import finetune
from cl_repro.methods.context import context
from cl_repro.models.progressive import progressive

SCENARIOS = {"task": scenarios.task, "domain": scenarios.domain, "class": scenarios.class_}
N_TASKS = 3
SEED = 2


def setting(scenario: str = "class", n_tasks: int = N_TASKS, dtype=torch.float64, **changes) -> Experiment:
    benchmark = thinned(first_tasks(digits(dtype=dtype), n_tasks), 30)
    changes = {"batch_size": 6, "iterations": 9} | changes
    return made_experiment(benchmark, SCENARIOS[scenario](), (8,), dtype, **changes)


def accuracy(scenario: str, lam: float, window: int, n: int, temperature: float) -> list[list[float]]:
    """[trained up to][asked about], of networks trained without a method, one question after the other."""
    experiment = setting(scenario)
    benchmark = experiment.benchmark
    curriculum = benchmark.curriculum(SEED)
    nets = [at(run(setting(scenario, t + 1), finetune(), [Replica(SEED, 0, None)]).params, 0) for t in (0, 1, 2)]

    def hidden(net: dict, row: torch.Tensor) -> torch.Tensor:
        x = row.flatten().double() / 16
        return (net["fc1.weight"] @ x + net["fc1.bias"]).clamp(min=0)

    def label(c: int, task: int) -> int:
        return sorted(curriculum.tasks[task].classes).index(c) if scenario == "domain" else c

    held: list[tuple[torch.Tensor, int]] = []
    found = []
    for trained, net in enumerate(nets):
        rows = curriculum.tasks[trained].rows
        for i in torch.randperm(len(rows), generator=rng.stream(SEED, "inspect", trained))[:n].tolist():
            c = int(curriculum.y[rows[i]])
            held.append((hidden(nets[0], benchmark.x[rows[i]]), label(c, trained)))
        held = held[-window:]
        of_tasks = []
        for asked, task in enumerate(curriculum.tasks):
            if scenario == "domain":
                active = [0, 1]
            elif scenario == "class":
                active = sorted(c for t in curriculum.tasks[: trained + 1] for c in t.classes)
            else:
                active = sorted(task.classes)
            right = 0
            for row in task.rows_test.tolist():
                z = net["head.weight"] @ hidden(net, benchmark.x_test[row]) + net["head.bias"]
                mass = torch.exp(z[active]) / torch.exp(z[active]).sum()
                q = hidden(nets[0], benchmark.x_test[row])
                seen = {c: 0.0 for c in active}
                for key, value in held:
                    if value in active:
                        cosine = float(q @ key / (q.norm() * key.norm()))
                        seen[value] += math.exp(cosine / temperature)
                whole = sum(seen.values()) or 1.0
                w = lam / (1 + lam)
                p = {c: (1 - w) * float(m) + w * seen[c] / whole for c, m in zip(active, mass, strict=True)}
                right += max(p, key=p.__getitem__) == label(int(curriculum.y_test[row]), asked)
            of_tasks.append(right / len(task.rows_test))
        found.append(of_tasks)
    return found


@pytest.mark.parametrize(
    ("scenario", "lam", "window", "temperature"),
    [("task", 3.0, 40, 0.1), ("domain", 1e6, 25, 0.5), ("class", 1e6, 100, 0.1), ("class", 0.4, 25, 0.05)],
)
def test_predictions_are_those_of_the_plain_loop(scenario, lam, window, temperature):
    [found] = run(setting(scenario), context(window, 20, temperature), [Replica(SEED, lam, None)]).outcomes
    assert found.accuracy[1:].tolist() == accuracy(scenario, lam, window, 20, temperature)


@pytest.mark.parametrize("share", [False, True])
def test_the_network_is_that_of_finetune_whatever_the_weight(share):
    experiment = setting(share_first_task=share, dtype=torch.float32)
    rows = [Replica(1, 0.0, None), Replica(2, 0.0, None), Replica(1, 9.0, None)]
    expected = run(experiment, finetune(), rows)
    found = run(experiment, context(50, 20), rows)
    assert same(found.params, expected.params)
    assert (found.outcomes[0].accuracy == expected.outcomes[0].accuracy).all()
    assert (found.outcomes[1].accuracy == expected.outcomes[1].accuracy).all()
    assert (found.outcomes[2].accuracy != expected.outcomes[2].accuracy).any()


def test_replicas_of_a_stack_are_the_singles():
    experiment = setting("domain")
    rows = [Replica(seed, lam, None) for seed, lam in ((3, 1e6), (1, 0.5), (3, 0.5))]
    together = run(experiment, context(45, 20), rows).outcomes
    for row, found in zip(rows, together, strict=True):
        [alone] = run(experiment, context(45, 20), [row]).outcomes
        assert (found.accuracy == alone.accuracy).all()


def test_a_task_that_fell_out_of_the_window_is_forgotten_at_once():
    """By the window alone, with nothing of the network's own: labels of the last task are all that it has to say."""
    rows = [Replica(SEED, 1e30, None)]
    [short] = run(setting(), context(20, 20), rows).outcomes
    [long] = run(setting(), context(60, 20), rows).outcomes
    assert (short.accuracy[3, :2] == 0).all()
    assert (long.accuracy[3, :2] > 0.4).all()
    assert short.storage["state"] < long.storage["state"]


def test_what_is_kept_is_counted():
    """A network of 64-8-10, an encoder; 60 examples of 8 features and 10 labels; lambda."""
    [found] = run(setting(), context(60, 20), [Replica(SEED, 1.0, None)]).outcomes
    assert found.storage == {"state": 8 * (65 * 8 + 9 * 10 + 60 * (8 + 10) + 1)}


def test_features_have_length_one_and_may_be_silent():
    """An example that activates nothing looks at all of the window alike."""
    made = setting()
    method, net = context(10, 5), made.net
    params, _ = net.init(torch.Generator().manual_seed(1))
    params = {name: p.double() for name, p in params.items()}
    silent = params | {"fc1.bias": torch.full_like(params["fc1.bias"], -1e3)}
    x = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    label, active = torch.tensor([0, 0, 0, 1, 2]), torch.arange(10) < 2
    state = method.init(params, torch.tensor(1e300, dtype=torch.float64))
    state = method.inspect(state, net, params, {}, x, label, active)
    assert (state.keys.norm(dim=0) - 1).abs().max() < 1e-12
    found = method.predict(state._replace(params=silent), net, params, {}, x, active).exp()
    expected = functional.one_hot(torch.tensor([0, 0, 0, 1]), 10).double().mean(0)
    assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"n": 0}, {"temperature": 0.0}, {"temperature": math.nan}, {"temperature": math.inf}]
)
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}="):
        context(**wrong)


def test_a_network_of_columns_has_no_head_to_look_at():
    net = progressive(2, [4], input_shape=(3,), n_outputs=4)
    assert "head.weight" not in net.init(torch.Generator())[0]
