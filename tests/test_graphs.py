"""A step in memory that stays: to the last bit the step as it is, whatever the method."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from made_experiments import digits, first_tasks, made_experiment, run
from made_trees import same

from benches import workloads
from cl_repro.engine import Epochs, Experiment, Replica, graphs
from cl_repro.engine.optim import AdamTF
from cl_repro.importance import fisher
from cl_repro.memory import reservoir
from cl_repro.methods.baselines import finetune
from cl_repro.methods.der import der
from cl_repro.methods.ewc import ewc
from cl_repro.methods.gpm import gpm
from cl_repro.methods.la_maml import la_maml
from cl_repro.methods.lwf import lwf
from cl_repro.methods.ogd import ogd
from cl_repro.methods.quadratic import quadratic
from cl_repro.methods.replay import replay
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import si, sib, siu
from cl_repro.models.keras_cnn import keras_cnn
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.types import Method

METHODS: dict[str, Callable[[], Method]] = {
    "finetune": finetune,
    "ewc": ewc,
    "quadratic-rebuilt": partial(quadratic, rebuild_every=6),
    "si": partial(si, xi=0.1),
    "siu": partial(siu, xi=0.1),
    "sib": partial(sib, xi=0.1),
    "sos-alpha": partial(sos, alpha=1.0),
    "lwf": lwf,
    "lwf-step": partial(lwf, teacher="step"),
    "replay": lambda: replay(reservoir(20)),
    "der++": lambda: der(reservoir(20), 0.5),
    "gpm": partial(gpm, n=20),
    "ogd": partial(ogd, n=5),
    "la_maml": lambda: la_maml(reservoir(20), 2),
}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LEAST", 5)
    graphs.say.cache_clear()


def replicas(method: str, k: int) -> list[Replica]:
    """Of two seeds, if there are several."""
    estimator = fisher.exact() if method in ("ewc", "quadratic-rebuilt") else None
    return [Replica(1 + i // 2, 10.0**i, estimator) for i in range(k)]


def assert_the_same(of: Experiment, method: Method, rows: list[Replica], monkeypatch: pytest.MonkeyPatch) -> int:
    """With and without; how many steps were taken in the same memory."""
    taken: list[int] = []
    in_place = graphs.Recorded.in_place
    monkeypatch.setattr(graphs.Recorded, "in_place", lambda recorded: taken.append(1) or in_place(recorded))
    expected, found = run(of, method, rows), run(of._replace(cuda_graph=True), method, rows)
    assert same(found.params, expected.params)
    assert same(found.stack.buffers, expected.stack.buffers)
    for one, other in zip(found.outcomes, expected.outcomes, strict=True):
        assert (one.accuracy == other.accuracy).all() and one.traces == other.traces
    return len(taken)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_steps_in_the_same_memory_have_the_same_bits(name: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    optimiser = partial(torch.optim.SGD, lr=0.05) if name in ("gpm", "ogd", "la_maml") else None
    of = made_experiment(first_tasks(digits(dtype=torch.float32), 3), dtype=torch.float32)
    of = of._replace(optimiser=optimiser or of.optimiser)
    taken = assert_the_same(of, METHODS[name](), replicas(name, k), monkeypatch)
    assert taken == (9 + 2 * 2 * 3 if name == "quadratic-rebuilt" else 3 * 9)  # of 12 steps a task, or of 6 and 6


@pytest.mark.parametrize("method", ["ewc", "si"])
def test_statistics_of_batches_are_kept_as_without(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = workloads.random_data(2, 20, 10, (3, 8, 8))
    of = workloads.experiment(data, (), 4, 7, net=slim_resnet18(2, input_shape=(3, 8, 8), n_outputs=4))
    assert assert_the_same(of, METHODS[method](), replicas(method, 1), monkeypatch) == 2 * 4


def refused(why: str) -> Experiment:
    """An experiment whose steps are no one recording."""
    made = made_experiment(first_tasks(digits(dtype=torch.float32), 2), dtype=torch.float32)
    if why.startswith("AdamTF"):
        return made._replace(optimiser=partial(AdamTF, lr=1e-2, fused=True))
    if why.startswith("mini-batches"):
        return made._replace(iterations=Epochs((1, 1)), batch_size=50)
    data = workloads.random_data(2, 20, 10, (3, 16, 16))
    net = keras_cnn([2, 2], 8, [0.1, 0.1, 0.1], input_shape=(3, 16, 16), n_outputs=4)
    return workloads.experiment(data, (), 4, 7, net=net)


@pytest.mark.parametrize(
    "why", ["AdamTF counts its steps in Python", "mini-batches differ in size", "the network draws random numbers"]
)
def test_what_cannot_be_recorded_is_said_once_and_goes_on(
    why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assert_the_same(refused(why), finetune(), [Replica(1, 0.0, None)], monkeypatch) == 0
    assert capsys.readouterr().err == f"cuda_graph=true: steps are taken one by one, because {why}\n"


def test_values_that_change_places_are_not_lost() -> None:
    one, other = torch.tensor(1.0), torch.tensor(2.0)
    graphs.put_back((one, other), (other, one))
    assert (one.item(), other.item()) == (2.0, 1.0)
