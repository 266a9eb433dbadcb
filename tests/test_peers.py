"""`fisher=compat/...` against the libraries' own code, where they are installed: .ci/run has an environment for them.

What is written out after them is in test_compat.py.
"""

from itertools import pairwise

import pytest
import torch
from made_passes import ALL_TEN, Pass, made_pass
from made_trees import error
from test_compat import SAMPLES, B, Model, preset
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cl_repro.benchmarks.data.torchvision_shim import prepare_torchvision
from cl_repro.importance import diagonal_fisher
from cl_repro.importance.compat import compat
from cl_repro.importance.fisher import empirical
from cl_repro.types import Tree


def module(of: Pass) -> nn.Sequential:
    """The network of a pass as usual code writes it."""
    layers: list[nn.Module] = []
    for name in dict.fromkeys(key.partition(".")[0] for key in of.params):
        weight, bias = of.params[f"{name}.weight"], of.params[f"{name}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def by_name(of: Pass, vector: Tensor) -> Tree:
    """A vector in the order of a module's parameters as a tree."""
    ends = torch.tensor([0, *(p.numel() for p in of.params.values())]).cumsum(0).tolist()
    parts = zip(of.params.items(), pairwise(ends), strict=True)
    return {name: vector[first:last].view(p.shape) for (name, p), (first, last) in parts}


def batches(of: Pass, size: int = B) -> DataLoader:
    """The examples in the order of the pass; the last batch is smaller."""
    return DataLoader(TensorDataset(of.x.flatten(1), of.y), batch_size=size)


def test_the_module_is_the_network() -> None:
    of = made_pass(ALL_TEN)
    assert error({"z": module(of)(of.x).detach()}, {"z": Model(of)(of.x).detach()}) < 1e-14
    theirs = diagonal_fisher(module(of), (of.x, of.y))
    assert (
        error(dict(zip(of.params, theirs.values(), strict=True)), of.measure(compat("all", "example", "examples")))
        < 1e-12
    )


def test_avalanche() -> None:
    """In the order of the pass, as it does not shuffle."""
    prepare_torchvision()
    ewc = pytest.importorskip("avalanche.training.plugins.ewc", reason="avalanche-lib is not installed")
    of = made_pass()
    model, data = Model(of), TensorDataset(of.x, of.y, torch.zeros_like(of.y))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    plugin = ewc.EWCPlugin(ewc_lambda=1.0)
    theirs = plugin.compute_importances(model, nn.CrossEntropyLoss(), optimiser, data, "cpu", B)
    found = {name: theirs["weights." + name.replace(".", "-")].data.double() for name in of.params}
    assert error(of.measure(preset("avalanche")), found) < 1e-6  # it adds up in float32


def test_capymoa() -> None:
    """Of a buffer that holds the first examples of the pass. It needs a Java runtime, as its streams are MOA's."""
    prepare_torchvision()
    ewc = pytest.importorskip("capymoa.ocl.strategy._ewc", reason="capymoa is not installed")
    of = made_pass(ALL_TEN)
    model = module(of)
    data = DataLoader(TensorDataset(of.x[:SAMPLES], of.y[:SAMPLES]), batch_size=B, shuffle=False)
    theirs = ewc.fd_compute(model, model, data, torch.device("cpu"), nn.CrossEntropyLoss())
    assert error(of.measure(preset("capymoa")), dict(zip(of.params, theirs, strict=True))) < 1e-12


def test_nngeometry() -> None:
    metrics = pytest.importorskip("nngeometry.metrics", reason="nngeometry is not installed")
    from nngeometry.object import PMatDiag  # noqa: PLC0415 - with it

    of = made_pass(ALL_TEN)
    single = of._replace(x=of.x.float())  # it multiplies by a matrix of float32
    theirs = metrics.FIM(module(of).float(), batches(single), PMatDiag, variant="classif_logits").get_diag()
    assert error(of.measure(preset("nngeometry")), by_name(of, theirs)) < 1e-5


def diagonal(operator: object) -> Tensor:
    """Of a linear operator, by its products with unit vectors."""
    size = operator.shape[0]  # type: ignore[attr-defined]
    return (operator @ torch.eye(size, dtype=torch.float64)).diagonal()  # type: ignore[operator]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_curvlinops(reduction: str) -> None:
    """All examples at once: with a mean loss batches of unequal size would count unequally."""
    curvlinops = pytest.importorskip("curvlinops", reason="curvlinops-for-pytorch is not installed")
    of = made_pass(ALL_TEN)
    model, loss = module(of), nn.CrossEntropyLoss(reduction=reduction)
    given = (model, loss, [*model.parameters()], [(of.x.flatten(1), of.y)])
    exact = diagonal(curvlinops.GGNLinearOperator(*given))
    ours = preset("curvlinops" if reduction == "mean" else "laplace_torch")
    assert error(of.measure(ours), by_name(of, exact)) < 1e-10
    squares = by_name(of, diagonal(curvlinops.EFLinearOperator(*given)))
    scale = 1 if reduction == "mean" else len(of.x)
    assert error({name: scale * value for name, value in of.measure(empirical()).items()}, squares) < 1e-10


@pytest.mark.parametrize("backend", ["BackPackGGN", "CurvlinopsGGN", "BackPackEF"])
def test_laplace_torch(backend: str) -> None:
    prepare_torchvision()  # which it imports
    laplace = pytest.importorskip("laplace", reason="laplace-torch is not installed")
    curvature = pytest.importorskip("laplace.curvature", reason="laplace-torch is not installed")
    of = made_pass(ALL_TEN)
    fitted = laplace.Laplace(
        module(of),
        "classification",
        subset_of_weights="all",
        hessian_structure="diag",
        backend=getattr(curvature, backend),
    )
    fitted.fit(batches(of))
    ours = preset("laplace_torch") if backend.endswith("GGN") else compat("true", "example", "one")
    assert error(of.measure(ours), by_name(of, fitted.H)) < 1e-10
