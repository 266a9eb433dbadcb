"""Progressive networks: the equation, their size, and that nothing is forgotten, bit for bit."""

import cli
import pytest
import torch
from made_experiments import digits, made_experiment, run
from made_trees import error, single
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.lifecycle import learn
from cl_repro.engine.stack import start
from cl_repro.methods.baselines import finetune
from cl_repro.models.progressive import progressive
from cl_repro.study import study
from cl_repro.types import Method

T = 5


def setting(lateral: bool = True, dtype: torch.dtype = torch.float32, **changes) -> Experiment:
    net = progressive(T, [7, 6], lateral, input_shape=(8, 8), n_outputs=10)
    made = made_experiment(digits(T, dtype), dtype=dtype, reset_optimiser=True, **changes)
    return made._replace(net=net)


@pytest.mark.parametrize("lateral", [True, False])
def test_logits_are_equation_2_column_by_column(lateral):
    net = progressive(3, [7, 6], lateral, alpha=0.7, input_shape=(8, 8), n_outputs=6)
    params = {n: p.double() for n, p in net.init(torch.Generator().manual_seed(1))[0].items()}
    x = torch.rand(4, 8, 8, dtype=torch.float64)
    h = [[x.flatten(1)] for _ in range(3)]
    for i, layer in enumerate(("fc1", "fc2", "head")):
        for k in range(3):
            name = f"c{k + 1}.{layer}"
            z = h[k][i] @ params[f"{name}.weight"].T + params[f"{name}.bias"]
            if lateral and i and k:
                earlier = torch.cat([params[f"{name}.alpha"][j] * h[j][i] for j in range(k)], 1)
                z = z + functional.relu(earlier @ params[f"{name}.V"].T) @ params[f"{name}.U"].T
            h[k].append(z.relu() if layer != "head" else z)
    found = net.apply(params, {}, x)[0]
    assert (found - torch.cat([of[-1] for of in h], 1)).abs().max() < 1e-14
    assert any(name.endswith(".U") for name in params) == lateral


@pytest.mark.parametrize(("hidden", "lateral", "millions"), [(100, False, 0.90), (100, True, 1.90), (256, True, 9.21)])
def test_parameters_of_ten_columns(hidden, lateral, millions):
    """784-h-h-10 a column, adapters as wide as the layer before them: 0.90, 1.90 and 9.21 million."""
    net = progressive(10, [hidden, hidden], lateral, input_shape=(28, 28), n_outputs=100)
    n = sum(p.numel() for p in net.init(torch.Generator())[0].values())
    column = 785 * hidden + (hidden + 1) * hidden + (hidden + 1) * 10
    adapters = sum(k + k * hidden**2 + hidden**2 + k + k * hidden**2 + hidden * 10 for k in range(1, 10))
    assert n == 10 * column + lateral * adapters
    assert n / 1e6 == pytest.approx(millions, abs=0.006)


def test_initial_adapters():
    """Alphas are 0.1; V, of k columns' units, and U are uniform within 1 / sqrt of the units they read."""
    params, _ = progressive(4, [50, 40], input_shape=(8, 8), n_outputs=8).init(torch.Generator().manual_seed(1))
    for k in (1, 2, 3):
        for layer, units in (("fc2", 50), ("head", 40)):
            name = f"c{k + 1}.{layer}"
            assert (params[f"{name}.alpha"] == 0.1).all()
            for part, read in (("V", k * units), ("U", units)):
                assert 0.9 < params[f"{name}.{part}"].abs().max() * read**0.5 <= 1


@pytest.mark.parametrize("lateral", [True, False])
def test_outputs_of_earlier_tasks_stay_bit_for_bit(lateral):
    experiment, x = setting(lateral), torch.rand(20, 8, 8)
    stack, outputs = start(experiment, [1]), []
    for task in range(T):
        before = {name: p.clone() for name, p in stack.params.items()}
        learn(experiment, stack, task, Method(), None)
        moved = {name for name, p in stack.params.items() if not torch.equal(p, before[name])}
        assert moved
        assert all(name.startswith(f"c{task + 1}.") for name in moved)
        z = experiment.net.apply({name: p[0] for name, p in stack.params.items()}, {}, x)[0]
        outputs.append(z[:, 2 * task : 2 * task + 2])
        for earlier, then in enumerate(outputs):
            assert torch.equal(z[:, 2 * earlier : 2 * earlier + 2], then)


def test_a_run_forgets_nothing_and_columns_help_each_other():
    """Accuracies on learned tasks never change; a later column is trained on what earlier ones compute."""
    for outcome in run(setting(), finetune(), [Replica(seed, 0.0, None) for seed in (1, 2)]).outcomes:
        after = outcome.accuracy[1:]
        for task in range(T):
            assert (after[task:, task] == after[task, task]).all()
    lone, fed = (run(setting(lateral), finetune(), [Replica(1, 0.0, None)]).params for lateral in (False, True))
    assert (fed["c3.fc2.V"] - setting().net.init(torch.Generator())[0]["c3.fc2.V"]).abs().max() > 0
    assert "c3.fc2.V" not in lone


def test_replicas_of_a_stack_are_the_singles():
    experiment, rows = setting(dtype=torch.float64, iterations=6), [Replica(seed, 0.0, None) for seed in (3, 1)]
    stacked = run(experiment, finetune(), rows)
    for i, row in enumerate(rows):
        assert error(single(stacked.params, i), single(run(experiment, finetune(), [row]).params, 0)) < 1e-10


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["optim=adam"], "model=progressive with optim=adam: needs an optimiser that is reset"),
        (["optim=adam_reset", "+optim.weight_decay=0.1"], "needs an optimiser that is reset for every task and has no"),
        (["optim=sgd_momentum", "optim.reset=false"], "needs an optimiser that is reset"),
        (["optim=adam_reset", "scenario=domain"], "model.columns=5: must divide the 2 logits"),
        (["optim=adam_reset", "scenario=class"], "model=progressive: needs scenario=task and columns=n_tasks"),
        (["optim=adam_reset", "model.columns=2"], "model=progressive: needs scenario=task and columns=n_tasks"),
        (
            ["optim=adam_reset", "reinit=true"],
            "model=progressive with reinit=true: would draw columns of earlier tasks",
        ),
        (["optim=adam_reset", "model.hidden=[]"], r"model.hidden=\[\]: must list"),
    ],
)
def test_what_would_forget_is_refused_before_training(choices, told):
    with pytest.raises(UserError, match=told):
        study.plan(cli.arms("model=progressive", "method=finetune", "seeds=[1]", *choices))


def test_what_forgets_nothing_is_accepted():
    for optim in ("adam_reset", "sgd", "sgd_momentum"):
        study.plan(cli.arms("model=progressive", "method=finetune", "seeds=[1]", f"optim={optim}"))
