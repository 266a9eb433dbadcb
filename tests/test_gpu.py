"""On a CUDA device what a CPU computes: every method, estimator and network, one replica and three, with a checkpoint.

In float64, where rounding cannot hide a fault, but for what is asked of float32 itself. `make gpu` runs these.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import cli
import numpy as np
import pytest
import torch
from torch import Tensor

from benches import workloads
from cl_repro import engine
from cl_repro.common import rng, runtime, tree
from cl_repro.engine import Experiment, Progress, Replica, checkpoint, graphs
from cl_repro.engine.boundary import estimate
from cl_repro.importance import diagonal_fisher, fisher
from cl_repro.importance.batched import batched
from cl_repro.measurements import anatomy, idea, program, unifying
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ogd import ogd
from cl_repro.methods.synaptic_intelligence import si
from cl_repro.models.convnet import convnet
from cl_repro.models.keras_cnn import keras_cnn
from cl_repro.models.slim_resnet18 import slim_resnet18
from cl_repro.models.vgg import vgg
from cl_repro.records import Store
from cl_repro.study import grid, stacking, study, worker
from cl_repro.study.config import CONF
from cl_repro.types import Estimator, Method, Net

pytestmark = pytest.mark.gpu
CUDA = "cuda"
TOLERANCE = 1e-6  # of weights and traces, relative; float64 rounds at 1e-16, and a few steps multiply it
ROUNDING = 1e-5  # of float32 products; TF32 would be at 3e-4
TINY = ["benchmark=split_digits", "model.hidden=[12]", "iterations=4", "batch_size=16", "seeds=[1]", "dtype=float64"]
NEEDS = {
    "method=gpm": ["method.n=30", "optim=sgd"],
    "method=ogd": ["method.n=20", "optim=sgd"],
    "method=la_maml": ["optim=sgd", "optim.lr=1", "method.slices=2", "lam=0.01"],
    "method=context": ["method.n=20", "method.window=50"],
    "method=ewc_guide": ["method.rebuild_every=2"],
    "method=replay": ["method.memory.size=40"],
    "method=der": ["method.memory.size=40"],
    "method=der_plus_plus": ["method.memory.size=40"],
    "model=progressive": ["method=finetune", "optim=adam_reset"],
}


def choices(group: str) -> list[str]:
    """Of a group of the configuration."""
    folder = CONF / group
    return [f"{group}={path.relative_to(folder).with_suffix('')}" for path in sorted(folder.rglob("*.yaml"))]


CONFIGURED = [
    *choices("method"),
    *choices("fisher"),
    *(f"{scenario} method={method}" for scenario in choices("scenario") for method in ("ewc", "lwf")),
    *(f"method=replay memory@method.memory={name.partition('=')[2]}" for name in choices("memory")),
    *(f"optim={name}" for name in ("adam", "adam_reset", "adam_tf", "sgd_momentum")),
    *("model=winners", "model=progressive", "method=lwf method.teacher=step", "method=sos method.alpha=1"),
    *("reinit=true method=si", "val_fraction=0.2", "tf32=true", "deterministic=true"),
]
SHAPE = {"input_shape": (3, 16, 16), "n_outputs": 6}
NETWORKS: dict[str, Net] = {
    "slim_resnet18": slim_resnet18(4, **SHAPE),
    "convnet": convnet([4, 4], [8], **SHAPE),
    "keras_cnn": keras_cnn([2, 2], 8, [0.0, 0.0, 0.0], **SHAPE),  # dropout draws on the device: other numbers
    "vgg": vgg("small", 32, **SHAPE),
}
# A bias before batch normalisation has no gradient but rounding, which Adam's usual eps of 1e-8 makes a step of.
ADAM = {"optimiser": partial(torch.optim.Adam, lr=1e-3, eps=1e-3, fused=True)}
TRAINED: dict[str, tuple[Method, Estimator | None, dict[str, Any]]] = {
    "exact": (ewc(), fisher.exact(), ADAM),
    "sample": (ewc(), fisher.sample(), ADAM),
    "batched": (ewc(), batched(16), ADAM),
    "channels last": (ewc(), fisher.exact(), ADAM | {"channels_last": True}),
    "si": (si(0.1), None, ADAM),
    "ogd": (ogd(n=5), None, {"optimiser": partial(torch.optim.SGD, lr=0.01), "reset_optimiser": True}),
}


def alternately(cases: Iterable[tuple[str, ...]]) -> list[Any]:
    """Each case with one replica and with three; every other is slow, so that `make test` has each case once."""
    return [
        pytest.param(*case, k, marks=[pytest.mark.slow] * ((i + k // 2) % 2))
        for i, case in enumerate(cases)
        for k in (1, 3)
    ]


class Setting(NamedTuple):
    """What runs on a device."""

    experiment: Experiment
    method: Method
    estimator: Estimator | None
    lam: float


@pytest.fixture(autouse=True, scope="module")
def prepared() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    runtime.prepare()


def runs_the_same(of: Callable[[str], Setting], k: int) -> None:
    """K replicas of two seeds end with the same weights on both devices, on CUDA from a checkpoint after task 2 on."""

    def run(device: str) -> tuple[Setting, Progress]:
        made = of(device)
        replicas = [Replica(1 + i // 2, made.lam * (i + 1), made.estimator) for i in range(k)]
        begun = None
        if device == CUDA:
            stages = engine.stages(made.experiment, made.method, replicas, {})
            at = next(at for at in stages if at.learned == 2)
            data = checkpoint.dump(at, made.experiment, {})
            begun = checkpoint.load(data, made.experiment, [r.seed for r in replicas], {})
        *_, at = engine.stages(made.experiment, made.method, replicas, {}, begun=begun)
        return made, at

    (made, at), (on_cuda, found) = run("cpu"), run(CUDA)
    assert {p.device.type for p in found.stack.params.values()} == {CUDA}
    for name, value in at.stack.params.items():
        assert error(found.stack.params[name], value) < TOLERANCE, name
    ours = engine.outcomes(on_cuda.experiment, on_cuda.method, found)
    for one, other in zip(ours, engine.outcomes(made.experiment, made.method, at), strict=True):
        np.testing.assert_allclose(one.accuracy, other.accuracy, rtol=0, atol=1e-9)
        np.testing.assert_allclose(one.traces, other.traces, rtol=TOLERANCE)
        assert (one.storage, one.finite) == (other.storage, other.finite)


def error(found: Tensor, expected: Tensor) -> float:
    """‖found - expected‖ / ‖expected‖."""
    wanted = expected.double()
    return float((found.cpu().double() - wanted).norm() / wanted.norm().clamp(min=1e-300))


SHOPS = {device: worker.Workshop(lambda *_: None) for device in ("cpu", CUDA)}


@pytest.mark.parametrize(("choice", "k"), alternately((choice,) for choice in CONFIGURED))
def test_every_method_and_estimator(choice: str, k: int) -> None:
    given = [*TINY, *choice.split(), *NEEDS.get(choice.partition(" memory")[0], [])]
    [cfg] = cli.arms(*given)
    if "n" in (cfg["fisher"] or {}):
        [cfg] = cli.arms(*given, "fisher.n=30")  # of about 280 examples that a task has

    def of(device: str) -> Setting:
        shop = SHOPS[device]
        return Setting(shop.experiment(grid.make_arm(cfg), device), shop.method(cfg), shop.estimator(cfg), cfg["lam"])

    runs_the_same(of, k)


def on_images(net: Net, device: str, dtype: torch.dtype, **changes: Any) -> Experiment:
    """Three tasks of random images, three steps each."""
    data = workloads.random_data(3, 40, 20, SHAPE["input_shape"], device, dtype)
    return workloads.experiment(data, (), 8, 3, net=net, dtype=dtype, device=device, rows_per_pass=20, **changes)


@pytest.mark.parametrize(("name", "what", "k"), alternately(product(NETWORKS, TRAINED)))
def test_every_network_of_convolutions(name: str, what: str, k: int) -> None:
    method, estimator, changes = TRAINED[what]

    def of(device: str) -> Setting:
        made = on_images(NETWORKS[name], device, torch.float64, share_first_task=True, **changes)
        return Setting(made, method, estimator, 10.0)

    runs_the_same(of, k)


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_is_not_rounded_to_tf32(name: str) -> None:
    """Logits, and the exact Fisher even of a run that trains in TF32."""
    net = NETWORKS[name]
    made = {d: on_images(net, d, t, tf32=True) for d, t in (("cpu", torch.float64), (CUDA, torch.float32))}
    trees = {d: [start.params, start.buffers] for d, of in made.items() for start in [engine.start(of, [1])]}
    x = {d: of.benchmark.to_input(of.benchmark.x[:20]) for d, of in made.items()}
    logits = {d: net.apply(*(tree.at(t, 0) for t in trees[d]), x[d])[0] for d in made}
    assert error(logits[CUDA], logits["cpu"]) < ROUNDING
    measured = {d: estimate(of, *trees[d], fisher.exact(), 1, 0) for d, of in made.items()}
    for key, value in measured["cpu"].items():
        assert error(measured[CUDA][key], value) < 10 * ROUNDING, key


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_run_twice_is_the_same_to_the_last_bit(name: str, k: int) -> None:
    made = on_images(NETWORKS[name], CUDA, torch.float32)
    replicas = [Replica(1, 10.0, fisher.exact())] * k
    one, other = ([*engine.stages(made, ewc(), replicas, {})][-1].stack.params for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("method", ["ewc", "si", "replay", "optim=adam_tf"])
def test_a_recorded_step_ends_where_steps_do(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On pretended CUDA there is no recording, and steps go on without."""
    monkeypatch.setattr(graphs, "LEAST", 5)
    choice = method if "=" in method else f"method={method}"
    [cfg] = cli.arms(*TINY, "iterations=8", "cuda_graph=true", choice, *NEEDS.get(choice, []))

    def of(device: str) -> Setting:
        shop = SHOPS[device]
        made = shop.experiment(grid.make_arm(cfg), device)._replace(cuda_graph=device == CUDA)
        return Setting(made, shop.method(cfg), shop.estimator(cfg), cfg["lam"])

    runs_the_same(of, 1)


@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_is_a_setting_of_the_process(wanted: bool) -> None:
    [cfg] = cli.arms(*TINY, f"deterministic={wanted}")
    SHOPS[CUDA].experiment(grid.make_arm(cfg), CUDA)
    assert torch.are_deterministic_algorithms_enabled() == wanted
    SHOPS["cpu"].experiment(grid.make_arm(cfg), "cpu")
    assert not torch.are_deterministic_algorithms_enabled()


# --- programs ---------------------------------------------------------------------------------------------------------


def accuracies(folder: Path, *overrides: str) -> dict[tuple[str, ...], float]:
    """Of a study's runs, by run, task and moment."""
    ended = study.compute_missing(cli.arms(*TINY, "iterations=6", *overrides, f"results_dir={folder}"), "test", cores=1)
    assert not ended.unfinished, ended.unfinished
    found = Store(folder / "runs").read()["accuracy.csv"]
    return {(row["run_id"], row["after_task"], row["task"]): float(row["accuracy"]) for row in found}


def test_a_study_of_two_processes_with_measured_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "CUDA_STACK", 8)
    work = ["seeds=[1,2]", "arms=[{method: finetune},{fisher: exact},{fisher: batched,fisher.batch_size: 16}]"]
    on_cpu = accuracies(tmp_path / "cpu", *work, "device=cpu", "workers=1")
    on_cuda = accuracies(tmp_path / "cuda", *work, "device=cuda", "workers=2")
    assert on_cuda == pytest.approx(on_cpu, abs=1e-5)
    assert (tmp_path / "cuda" / "runs" / ".spool" / "stacks.measured").exists()


@pytest.mark.parametrize(("context", "expected"), [(0.0, stacking.TOGETHER), (1e15, 1)])
def test_processes_share_a_device_whose_memory_they_fit(
    context: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacking, "CONTEXT", context)
    given = ["device=cuda", "workers=auto", "max_replicas=1", f"results_dir={tmp_path}"]
    assert study.plan(cli.arms(*TINY, *given)).processes == expected


def test_a_study_in_slices(tmp_path: Path) -> None:
    work = ["device=cuda", "workers=1", "grid.lambdas=[1,100]", "max_replicas=1"]
    whole, left = accuracies(tmp_path / "whole", *work), 99
    while left:
        arms = cli.arms(*TINY, "iterations=6", *work, "time_budget=1e-9", f"results_dir={tmp_path / 'slices'}")
        left = left - 1 if study.compute_missing(arms, "test", cores=1).unfinished else 0
    assert accuracies(tmp_path / "slices", *work) == whole


def test_a_study_in_slices_on_another_device_than_the_first(tmp_path: Path) -> None:
    if runtime.cuda_devices() < 2:
        pytest.skip("one CUDA device")
    work = ["workers=1", "max_replicas=2", "grid.lambdas=[1,100]"]
    expected, left = accuracies(tmp_path / "first", *work, "device=cuda:0"), 99
    while left:
        arms = cli.arms(*TINY, *work, "iterations=6", "device=cuda:1", "time_budget=1e-9", f"results_dir={tmp_path}")
        left = left - 1 if study.compute_missing(arms, "test", cores=1).unfinished else 0
    found = Store(tmp_path / "runs").read()["accuracy.csv"]
    assert {(row["run_id"], row["after_task"], row["task"]): float(row["accuracy"]) for row in found} == expected


def test_the_plane_of_the_idea(tmp_path: Path) -> None:
    work = ["benchmark.n_tasks=2", "+benchmark.protocol.idea={points: 3, every: 2}", "name=idea"]
    arms = "arms=[{method: finetune},{method: l2, lam: 0.003},{method: ewc, lam: 300.0}]"
    folders = [
        program.measure_missing(idea.PROGRAM, [*TINY, *work, arms, f"device={d}", f"results_dir={tmp_path / d}"])
        for d in ("cpu", CUDA)
    ]
    one, other = ((folder / "plane.csv").read_text().splitlines()[1:] for folder in folders)
    values = [np.array([line.split(",") for line in lines], float) for lines in (one, other)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4, atol=1e-5)


def test_anatomy_and_unifying(tmp_path: Path) -> None:
    common = ["benchmark=split_digits", "device=cuda", "seeds=[1]", f"results_dir={tmp_path}"]
    assert program.measure_missing(anatomy.PROGRAM, [*common, "iterations=30", "model.hidden=[16]"]).is_dir()
    work = ["benchmark.n_tasks=2", "iterations=6", "model.hidden=[5]", "method=si", "optim=adam_reset", "lam=0.5"]
    figures = ["+benchmark.protocol.figures.full_every=2", "+benchmark.protocol.figures.points=3", "reinit=true"]
    assert program.measure_missing(unifying.PROGRAM, [*common, *work, *figures]).is_dir()


@pytest.mark.parametrize("labels", ["exact", "sample", "empirical", "predicted"])
def test_the_library_s_fisher(labels: str) -> None:
    """Of a module on CUDA, whatever device the examples are on."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)]
    module = torch.nn.Sequential(*layers).double()
    x, y = torch.rand(20, 3, 8, 8, dtype=torch.float64, generator=rng.stream(1, "x")), torch.arange(20) % 5
    draw = {} if labels != "sample" else {"generator": torch.Generator().manual_seed(1)}
    expected = diagonal_fisher(module, (x, y), labels, **draw)
    for data in ((x, y), (x.cuda(), y.cuda())):
        again = {} if labels != "sample" else {"generator": torch.Generator().manual_seed(1)}
        found = diagonal_fisher(module.cuda(), data, labels, **again)
        assert all(error(found[key], expected[key]) < TOLERANCE for key in expected)
