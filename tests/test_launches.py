"""What a training step asks of a device: how many operators, each a kernel or more, and that it waits for none.

Counted on a CPU, by what torch dispatches, with the operations on all tensors at once that a CUDA device gets.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benches import workloads
from cl_repro.common import tree
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.training import REPORT_EVERY, follow
from cl_repro.importance.fisher import exact
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import si
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Method

# Operators of a step of the second task, one replica. A change here is a change of speed on a GPU: say why.
EXPECTED = {
    ("mlp", "none"): 31,
    ("mlp", "ewc"): 34,
    ("slim_resnet18", "none"): 172,
    ("slim_resnet18", "ewc"): 161,
    ("slim_resnet18", "si"): 594,
    ("slim_resnet18", "sos"): 596,
}
WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "_unique2", "unique_dim", "masked_select"}
METHODS: dict[str, Method] = {"none": finetune(), "ewc": ewc(), "si": si(0.1), "sos": sos()}


class Watch(TorchDispatchMode):
    """Counts operators that compute, not those that make views or room, and those for which the host waits."""

    def __init__(self, on_host: torch.Tensor) -> None:
        """Reading `on_host`, which is on the CPU on every device, is no wait."""
        super().__init__()
        self.on_host = storages(on_host)
        self.computed: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = storages((args, kwargs))
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        makes_room = name.startswith(("empty", "new_empty"))
        if func._schema.is_mutable or not (makes_room or storages(result) <= given):
            self.computed[name] += 1
        if name in WAITS and not given <= self.on_host:
            self.waits[name] += 1
        return result


def storages(values: Any) -> set[int]:
    """Of the tensors among these, in any containers."""
    return {id_of(value) for value in tree_leaves(values) if isinstance(value, torch.Tensor)}


def id_of(value: torch.Tensor) -> int:
    return value.untyped_storage()._cdata


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tree, "at_once", bool)
    yield


def made(network: str) -> Experiment:
    """Two tasks of a few random images, two steps each."""
    if network == "mlp":
        return workloads.experiment(workloads.random_data(2, 60, 20, (4, 4)), (6, 5), 4, 2)
    net = slim_resnet18(2, input_shape=(3, 8, 8), n_outputs=4)
    data = workloads.random_data(2, 20, 10, (3, 8, 8))
    return workloads.experiment(data, (), 4, 2, net=net, rows_per_pass=20)


def watched(network: str, method: str, steps: int = 1) -> Watch:
    """The second step of the second task and those after it."""
    replica = Replica(1, 1.0, exact() if method == "ewc" else None)
    course = workloads.second_task(made(network)._replace(iterations=steps + 1), METHODS[method], [replica])
    follow(course, 1)
    with Watch(course.drawn.sizes) as watch:
        follow(course, steps + 1)
    return watch


@pytest.mark.parametrize(("network", "method"), EXPECTED)
def test_a_step_launches_as_much_as_is_written_down(network: str, method: str) -> None:
    assert sum(watched(network, method).computed.values()) == EXPECTED[network, method]


@pytest.mark.parametrize("network", ["mlp", "slim_resnet18"])
def test_a_penalty_is_three_operators_whatever_the_network(network: str) -> None:
    more = watched(network, "ewc").computed - watched(network, "none").computed
    assert more == {"_foreach_sub": 1, "_foreach_mul_": 1, "_foreach_add_": 1}


def test_training_waits_for_the_device_only_where_it_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows, and a last step of its own: three reports."""
    found = watched("mlp", "ewc", 2 * REPORT_EVERY + 1)
    assert found.waits == {"_local_scalar_dense": 3}
