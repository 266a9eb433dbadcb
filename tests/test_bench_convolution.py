"""That what the convolution bench compares computes the same, and that its CUDA code runs."""

import warnings

import pytest
import torch
from made_trees import error
from torch import nn

from benches import convolution, importance_sampling, reference
from benches.measure import Setting, alone, verdict
from benches.modules import ConvNet, SlimResNet18
from benches.workloads import random_data
from cl_repro.common import rng
from cl_repro.importance import diagonal_fisher
from cl_repro.importance.fisher import exact
from cl_repro.models.convnet import convnet
from cl_repro.models.slim_resnet18 import slim_resnet18

IMAGES = (3, 16, 16)


@pytest.mark.parametrize(
    ("net", "module"),
    [
        (slim_resnet18(3, input_shape=IMAGES, n_outputs=2), SlimResNet18(3, 2)),
        (convnet([3, 4, 5], [7], input_shape=IMAGES, n_outputs=2), ConvNet([3, 4, 5], [7], 16, 2)),
    ],
    ids=["slim_resnet18", "convnet"],
)
def test_backpack_computes_our_exact_fisher(net, module):
    """Its generalised Gauss-Newton of the cross-entropy, by its own code: an oracle from outside."""
    params, buffers = net.init(rng.stream(1, "init"))
    with torch.no_grad():
        for target, p in zip(module.parameters(), params.values(), strict=True):
            target.copy_(p)
    x, y = torch.randn(8, *IMAGES, generator=rng.stream(1, "x")), torch.zeros(8, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its hooks
        found = 8 * reference.backpack(module.eval(), x, y, 3)()
    noise = torch.rand(8, dtype=torch.float64)
    expected = exact().sum(net, params, buffers, x, y, noise, torch.arange(2))
    assert error({"all": found}, {"all": torch.cat([f.flatten() for f in expected.values()])}) < 1e-5


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_backpacks_monte_carlo_estimate_is_of_our_exact_fisher():
    """Its mean over many drawn labels; one of them is what the bench times importance sampling against."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    expected = diagonal_fisher(module, (x, y))
    found = reference.backpack(module, x, y, 6, "DiagGGNMC", mc_samples=20_000)()
    assert error({"all": found}, {"all": torch.cat([f.flatten() for f in expected.values()])}) < 0.05


def test_the_ten_classes_of_the_bench_are_one_task(tmp_path, monkeypatch):
    monkeypatch.setattr(importance_sampling, "mnist", lambda folder: (random_data(5, 8, 4, (3, 3)), "made"))
    monkeypatch.setattr(importance_sampling, "N", 30)
    benchmark, data = importance_sampling.in_one_task(tmp_path)
    [task] = benchmark.curriculum(1).tasks
    assert (data, len(task.rows.unique()), task.classes) == ("made", 30, tuple(range(10)))
    assert len(benchmark.curriculum(1).y[task.rows].unique()) == 10


def test_the_code_of_the_cuda_rows_runs():
    subject = convolution.Subject(
        "small", convnet([2, 3], [], input_shape=(3, 32, 32), n_outputs=2), lambda: ConvNet([2, 3], [], 32, 2), 1.0
    )
    seconds = convolution.seconds_on(subject, "cpu", n=16, batch=4, iterations=3, rounds=1)
    assert all(seconds[name] > 0 for name in ("ours", "usual", "fisher"))


def test_without_cuda_its_rows_are_not_measured(tmp_path):
    rows = convolution.on_cuda(Setting(rounds=1, data_dir=tmp_path))
    assert [verdict(row) for row in rows] == ["not measured", "not measured"]
    assert [row.target for row in rows] == [2.0, 5.0]


@pytest.mark.slow
def test_the_memory_of_a_pass_is_set_by_its_size():
    """And by nothing else: twice the rows at a time, about twice what is held beside the process itself."""
    none, some, more = (alone(convolution.peak_of_pass, n) for n in (1, 32, 63))
    assert more - some == pytest.approx(some - none, rel=0.3)
