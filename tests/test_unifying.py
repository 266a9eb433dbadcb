"""One run watched by all measures: against plain loops in float64, and what the watching must not disturb."""

import io
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import cli
import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from made_experiments import digits, first_tasks, made_experiment, run, thinned
from made_trees import error, same
from torch import Tensor

from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.common.tree import flat, pearson
from cl_repro.engine import Experiment, Replica
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import advance, begin, learn
from cl_repro.engine.stack import start
from cl_repro.measurements import program, unifying
from cl_repro.measurements.unifying import measures
from cl_repro.measurements.unifying.course import loss_of_batch, slope_of_batch, slope_of_task
from cl_repro.measurements.unifying.folder import npz
from cl_repro.measurements.unifying.observed import observed
from cl_repro.measurements.unifying.path import schedule
from cl_repro.measurements.unifying.watch import Settings, drawn, shortened, watch
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import omega, si, sib, siu
from cl_repro.records import to_csv
from cl_repro.records.measured import UNIFYING
from cl_repro.study import study
from cl_repro.study.config import check
from cl_repro.types import Method, Net, Tree

XI, LAM, SEED = 0.1, 3.0, 2
ALL = (siu(XI), sib(XI), sos(), sos(alpha=1.0))


def dropping(net: Net) -> Net:
    """The network with dropout of its inputs, and with a head that nothing protects."""

    def apply(params: Tree, buffers: Tree, x: Tensor, *, train: bool = False, noise: Any = None, **given: Any) -> Any:
        x = x.flatten(1) * (noise >= 0.3) if train else x
        return net.apply(params, buffers, x, train=train, **given)

    return net._replace(apply=apply, noise=64, unprotected=frozenset({"head.weight", "head.bias"}))


def made(**changes: Any) -> Experiment:
    """A small experiment with the protocol of the figures: a new optimiser for every task, and new weights."""
    options: dict[str, Any] = {"reset_optimiser": True, "reinit": True, "iterations": 12, **changes}
    return made_experiment(**options)


def begun(experiment: Experiment, method: Method, task: int = 0) -> Course:
    """A task in training."""
    stack = start(experiment, [SEED])
    params = {name: p[0] for name, p in experiment.protected(stack.params).items()}
    state = method.init(params, torch.tensor(LAM, dtype=experiment.dtype)) if method.init else None
    return begin(experiment, stack, task, method, state)


# --- watching changes nothing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("acting", [si(XI), sos(), ewc(), finetune()], ids=["si", "sos", "ewc", "finetune"])
def test_watching_changes_nothing(acting: Method, dropout: bool) -> None:
    """Bit for bit, in float32, for several replicas at once and through all tasks."""
    experiment = made(benchmark=first_tasks(digits(dtype=torch.float32), 3), dtype=torch.float32)
    experiment = experiment._replace(net=dropping(experiment.net) if dropout else experiment.net)
    estimator = made_estimator() if acting.init and not acting.observe else None
    rows = [Replica(1, LAM, estimator), Replica(2, 30.0, estimator)]
    alone = run(experiment, acting, rows)
    watched = run(experiment, observed(acting, si(0.5), *ALL), rows)
    assert same(watched.params, alone.params)
    if acting.init:
        assert not same(alone.params, run(experiment, acting, [Replica(1, 1.0, estimator), rows[1]]).params)


def made_estimator() -> Any:
    """Of the importance that an acting method may need."""
    return measures.ESTIMATED["fisher"](None)


def test_those_who_watch_see_what_they_would_see_if_they_acted_alone_in_the_first_task() -> None:
    """There is no penalty yet, so all paths are one."""
    experiment = made()
    method = observed(si(XI), *ALL)
    course = begun(experiment, method)
    advance(course, 12)
    state = course.state
    for own, seen in zip((si(XI), *ALL), (state.acting, *state.watching), strict=True):
        alone = begun(experiment, own)
        advance(alone, 12)
        assert same(alone.state, seen)
    parts = [watching.path for watching in state.watching[:2]]
    assert error({name: s + parts[1][name] for name, s in parts[0].items()}, state.acting.path) < 1e-12


def test_gradients_are_those_that_somebody_reads() -> None:
    assert observed(si(XI)).needs.gradients == ("batch",)
    assert observed(siu(XI), siu(XI)).needs.gradients == ("independent",)
    assert observed(si(XI), *ALL).needs.gradients == ("batch", "independent")
    assert observed(finetune()).needs.gradients == ()


# --- slices, and gradients of all examples ---------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[0, 12], [0, 1, 2, 7, 11, 12], list(range(13))], ids=["one", "some", "each"])
@pytest.mark.parametrize("dropout", [False, True], ids=["plain", "dropout"])
def test_slices_are_one_go(cuts: list[int], dropout: bool) -> None:
    """Bit for bit, weights, moments and what was observed, with a penalty and in a second task."""
    experiment = made(dtype=torch.float32)
    experiment = experiment._replace(net=dropping(experiment.net) if dropout else experiment.net)
    method = observed(si(XI), *ALL)
    stack, state = start(experiment, [SEED]), None
    course = begun(experiment, method)
    for task in range(2):
        state = learn(experiment, stack, task, method, state or initial(experiment, method))
        if task:
            course = begin(experiment, course.stack, task, method, course.state)
        for first, last in pairwise(cuts):
            looked_at(course, first)
            advance(course, last - first)
        assert same(course.stack.params, stack.params)
        assert same(course.state, state)
        state, course.state = (method.end_task(one, course.weights, {}) for one in (state, course.state))
    moments = [list(s.optimiser.state.values()) for s in (course.stack, stack)]
    assert all(same(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in zip(*moments, strict=True))


def initial(experiment: Experiment, method: Method) -> Any:
    """The state of a method before any training."""
    stack = start(experiment, [SEED])
    params = {name: p[0] for name, p in experiment.protected(stack.params).items()}
    return method.init(params, torch.tensor(LAM, dtype=experiment.dtype))


def looked_at(course: Course, t: int) -> None:
    """What looks at a network between two slices."""
    slope_of_task(course)
    slope_of_batch(course, t)
    loss_of_batch(course, t)


@pytest.mark.parametrize("rows_per_pass", [7, 1000])
def test_the_full_gradient_is_autograds_of_all_examples(rows_per_pass: int) -> None:
    """In float64; without dropout, of protected parameters, on the task's own classes."""
    experiment = made(rows_per_pass=rows_per_pass)
    experiment = experiment._replace(net=dropping(experiment.net))
    course = begun(experiment, observed(si(XI), *ALL), task=1)
    curriculum = experiment.benchmark.curriculum(SEED)
    task = curriculum.tasks[1]
    leaves = {name: p[0].clone().requires_grad_() for name, p in course.stack.params.items()}
    z = experiment.net.apply(leaves, {}, experiment.benchmark.x[task.rows].double() / 16)[0]
    log_p = z[:, list(task.classes)].log_softmax(1)
    own = torch.tensor([task.classes.index(int(c)) for c in curriculum.y[task.rows]])
    loss = -log_p.gather(1, own[:, None]).mean()
    loss.backward()
    found = slope_of_task(course)
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert set(found.gradient) == {"fc1.weight", "fc1.bias"}
    assert error(found.gradient, {name: leaves[name].grad for name in found.gradient}) < 1e-12


@pytest.mark.parametrize(
    ("steps", "points", "e", "dense"), [(40, 8, 1, 10), (41, 7, 4, 10), (7, 50, 3, 1), (9, 3, 20, 5)]
)
def test_every_step_counts_once_in_the_sum_along_the_full_gradient(steps: int, points: int, e: int, dense: int) -> None:
    at = schedule(steps, points, e, dense)
    weights = [at.weight(t) for t in range(steps)]
    assert sum(weights) == steps
    assert all(w == 1 for w in weights[:dense])
    stops = at.stops()
    assert all(at.row(t) <= (t in stops) for t in range(steps + 1)) and stops[-1] == steps
    assert all({t, t + 1} <= set(stops) for t, w in enumerate(weights) if w)  # alone in its slice
    for t in stops:  # no row between a sampled step and the steps it stands for
        assert not at.row(t) or sum(weights[:t]) == t
    bare = schedule(steps, points, None, dense)
    assert not any(bare.weight(t) for t in range(steps))
    assert bare.stops() == [t for t in range(steps + 1) if bare.row(t)]


# --- everything, against a plain loop --------------------------------------------------------------------------------


def plain_loss(net: Net, params: Tree, x: Tensor, label: list[int], classes: list[int]) -> Tensor:
    z = net.apply(params, {}, x.double() / 16)[0][:, classes]
    return -torch.stack([z[i].log_softmax(0)[classes.index(c)] for i, c in enumerate(label)]).mean()


def plain_gradient(net: Net, params: Tree, *data: Any) -> tuple[float, Tree]:
    leaves = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
    loss = plain_loss(net, leaves, *data)
    loss.backward()
    return float(loss.detach()), {name: leaf.grad for name, leaf in leaves.items()}


def vector(of: Tree) -> np.ndarray:
    return np.concatenate([value.detach().flatten().numpy() for value in of.values()])


def plain_run(experiment: Experiment, lam: float) -> dict[str, list[Any]]:
    """SI the usual way, one network: sums after every step, and all vectors after every task."""
    curriculum = experiment.benchmark.curriculum(SEED)
    net, x = experiment.net, experiment.benchmark.x
    params = {name: p.double() for name, p in net.init(rng.stream(SEED, "init"))[0].items()}
    importance, anchor = {name: torch.zeros_like(p) for name, p in params.items()}, dict(params)
    steps: list[Any] = []
    tasks: list[Any] = []
    for t, task in enumerate(curriculum.tasks):
        if t:
            params = {name: p.double() for name, p in net.init(rng.stream(SEED, "init", t))[0].items()}
        params = {name: p.clone().requires_grad_() for name, p in params.items()}
        optimiser = torch.optim.Adam(list(params.values()), lr=1e-2)
        began, full_sum = vector(params), 0.0
        s = {name: np.zeros(len(began)) for name in ("si", "siu", "sib")}
        v, v1 = np.zeros(len(began)), np.zeros(len(began))
        classes, everything = list(task.classes), (x[task.rows], curriculum.y[task.rows].tolist())
        streams = [rng.stream(SEED, name, t) for name in ("order", "independent")]
        order, independent = (rng.batches(g, len(task.rows), experiment.batch_size, 12).tolist() for g in streams)
        for own, other in zip(order, independent, strict=True):
            a, b = (task.rows[rows] for rows in (own, other))
            batch_loss, g = plain_gradient(net, params, x[a], curriculum.y[a].tolist(), classes)
            _, g1 = plain_gradient(net, params, x[b], curriculum.y[b].tolist(), classes)
            loss, full = plain_gradient(net, params, *everything, classes)
            noise = float(((vector(g) - vector(full)) ** 2).sum()), float((vector(full) ** 2).sum())
            sums = {"si": s["si"].sum(), "siu": s["siu"].sum(), "full": full_sum}
            steps.append({"task": t + 1, **sums, "loss": loss, "batch_loss": batch_loss, "noise": noise})
            before = vector(params)
            penalty = sum((importance[n] * (p - anchor[n]) ** 2).sum() for n, p in params.items())
            optimiser.zero_grad()
            total = plain_loss(net, params, x[a], curriculum.y[a].tolist(), classes) + lam * penalty
            total.backward()
            optimiser.step()
            change = vector(params) - before
            s["si"] -= vector(g) * change
            s["siu"] -= vector(g1) * change
            s["sib"] += (vector(g1) - vector(g)) * change
            v = 0.999 * v + 0.001 * vector(g) ** 2
            v1 = 0.999 * v1 + 0.001 * (vector(g) - vector(g1)) ** 2
            full_sum -= (vector(full) * change).sum()
        found = {"sos": np.sqrt(v), "sos_alpha1": np.sqrt(v1)}
        for name, raw in s.items():
            unclipped = raw / ((vector(params) - began) ** 2 + XI)
            found |= {f"{name}_raw": raw, f"{name}_unclipped": unclipped, name: np.maximum(unclipped, 0)}
        params = {name: p.detach() for name, p in params.items()}
        tasks.append(found | plain_sensitivities(net, params, x[task.rows].double() / 16, classes))
        sizes = np.split(found["si"], np.cumsum([p.numel() for p in params.values()])[:-1])
        pairs = zip(params.items(), sizes, strict=True)
        importance = {n: importance[n] + torch.from_numpy(part).view(p.shape) for (n, p), part in pairs}
        anchor = params
        sums = {"si": s["si"].sum(), "siu": s["siu"].sum(), "full": full_sum}
        steps.append({"task": t + 1, **sums, "loss": plain_gradient(net, params, *everything, classes)[0]})
    return {"steps": steps, "tasks": tasks}


def plain_sensitivities(net: Net, params: Tree, x: Tensor, classes: list[int]) -> dict[str, np.ndarray]:
    """Fisher, AF and the MAS family of all examples, one at a time."""
    total = {name: 0.0 for name in ("fisher", "af", "mas", "masx", "mas_logits", "masx_logits")}
    of_logits = {
        "mas": lambda z: (z.softmax(0) ** 2).sum(), "masx": lambda z: z.softmax(0).max() ** 2,
        "mas_logits": lambda z: (z**2).sum(), "masx_logits": lambda z: z.max() ** 2,
    }  # fmt: skip
    for example in x:
        for label in range(len(classes)):
            g, p = oracles.gradient(net, params, example, label, classes)
            total["fisher"] = total["fisher"] + p[label] * vector(g) ** 2
            total["af"] = total["af"] + p[label] * abs(vector(g))
        for name, f in of_logits.items():
            leaves = {key: p.clone().requires_grad_() for key, p in params.items()}
            f(net.apply(leaves, {}, example[None])[0][0][classes]).backward()
            total[name] = total[name] + abs(vector({key: leaf.grad for key, leaf in leaves.items()}))
    found = {name: value / len(x) for name, value in total.items()}
    return found | {"sqrt_fisher": np.sqrt(found["fisher"]), "af_many": found["af"]}


@pytest.fixture(scope="module")
def small() -> Experiment:
    """Two tasks of 20 examples each, and importances of all of them."""
    return made(benchmark=thinned(digits(2), 20), hidden=(5,), rows_per_pass=7, batch_size=8)


@pytest.fixture(scope="module")
def expected(small: Experiment) -> dict[str, list[Any]]:
    return plain_run(small, LAM)


@pytest.fixture(scope="module")
def found(small: Experiment) -> dict[str, pd.DataFrame]:
    """What is written of the same run, a row for each step."""
    rows = watch(small, si(XI), XI, SEED, LAM, Settings(20, 20, 12, 1, 100), in_detail=True).rows
    return {name: pd.read_csv(io.BytesIO(to_csv(list(part[0]), part))) for name, part in rows.items()}


def test_sums_losses_and_noise_are_those_of_a_plain_loop(found: dict, expected: dict) -> None:
    steps, summed = pd.DataFrame(expected["steps"]), found["summed"]
    assert (summed["task"] == steps["task"]).all() and (summed["iteration"] == [*range(13), *range(13)]).all()
    for key in ("si", "siu"):
        assert summed[key].to_numpy() == pytest.approx(steps[key].to_numpy(), rel=1e-5, abs=1e-9)
    first = summed["task"] == 1
    assert summed["full"][first].to_numpy() == pytest.approx(steps["full"][first].to_numpy(), rel=1e-5, abs=1e-9)
    assert summed["full"][~first].isna().all()
    assert summed["loss"][first].to_numpy() == pytest.approx(steps["loss"][first].to_numpy(), rel=1e-5)
    batch = summed["loss"][~first].to_numpy()[:12]
    assert batch == pytest.approx(steps["batch_loss"][~first].to_numpy()[:12], rel=1e-5)
    noise = np.array([pair for pair in steps["noise"][first] if isinstance(pair, tuple)])
    assert found["noise"][["noise", "signal"]].to_numpy() == pytest.approx(noise, rel=1e-5)


def test_correlations_are_numpys_of_the_vectors_of_a_plain_loop(found: dict, expected: dict) -> None:
    rows = found["correlations"]
    assert set(zip(rows["x"], rows["y"], strict=True)) == set(measures.PAIRS)
    for row in rows.itertuples():
        x, y = (expected["tasks"][row.task - 1][key] for key in (row.x, row.y))
        kept = np.argsort(x)[: len(x) - round(row.dropped * len(x))]
        assert row.r == pytest.approx(np.corrcoef(x[kept], y[kept])[0, 1], rel=2e-5), (row.x, row.y, row.dropped)
    assert rows["dropped"].gt(0).sum() == 2 * 2 * 3 and rows["r"].abs().max() <= 1


def test_correlations_without_the_largest_are_numpys_by_every_rule(found: dict, expected: dict) -> None:
    """The rules leave out other weights than the largest SIU, and other weights than each other."""
    rows = found["trimmed"]
    for row in rows.itertuples():
        x, y = (expected["tasks"][row.task - 1][key] for key in (row.x, row.y))
        out = round(row.dropped * len(x))
        by = {"size": abs(x).argsort(), "y": y.argsort()}
        kept = x.argsort()[out // 2 : len(x) - out + out // 2] if row.by == "tails" else by[row.by][: len(x) - out]
        assert row.r == pytest.approx(np.corrcoef(x[kept], y[kept])[0, 1], rel=2e-5), (row.x, row.dropped, row.by)
    assert len(rows) == 2 * 2 * 3 * 3
    signed = found["correlations"].query("dropped > 0").assign(by="x")
    rules = pd.concat([signed, rows]).query("x == 'siu_raw'").groupby(["task", "dropped"])["r"].nunique()
    assert rules.max() == 4


def test_without_examples_nothing_is_measured_at_the_end(small: Experiment, found: dict) -> None:
    rows = watch(small, si(XI), XI, SEED, LAM, Settings(None, None, 12, 1, 100), in_detail=True)
    assert pd.read_csv(io.BytesIO(to_csv(list(rows.rows["summed"][0]), rows.rows["summed"]))).equals(found["summed"])
    assert not rows.scatter and not any(rows.rows[name] for name in ("correlations", "trimmed", "measures"))


def test_extents_are_those_of_the_vectors_of_a_plain_loop(found: dict, expected: dict) -> None:
    for row in found["measures"].itertuples():
        value = expected["tasks"][row.task - 1][row.measure]
        assert (row.total, row.largest) == pytest.approx((value.sum(), value.max()), rel=1e-5)
        assert row.negative == pytest.approx((value < 0).mean(), rel=1e-5)
    assert set(found["measures"]["measure"]) == set(expected["tasks"][0])
    shares = found["measures"].set_index(["task", "measure"])["negative"]
    assert 0 < shares[1, "siu_raw"] < 1 and shares[1, "siu"] == 0


def test_a_full_gradient_at_every_third_step_counts_three_times(small: Experiment, expected: dict) -> None:
    settings = Settings(20, None, 12, 3, 3)
    rows = watch(small, si(XI), XI, SEED, LAM, settings, in_detail=True).rows
    full = np.diff([one["full"] for one in expected["steps"][:13]])
    last = float(rows["summed"][4]["full"])
    assert [row["iteration"] for row in rows["summed"][:5]] == [0, 3, 6, 9, 12]
    assert last == pytest.approx(full[:3].sum() + 3 * full[3::3].sum(), rel=1e-5)
    assert [row["iteration"] for row in rows["noise"]] == [0, 3, 6, 9]


# --- the pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_pearson_is_numpys(offset: float) -> None:
    a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).float()
    b = a + b + offset
    assert pearson(a, b) == pytest.approx(np.corrcoef(a.numpy(), b.numpy())[0, 1], rel=1e-9)
    assert pearson(a, -3 * a) == pytest.approx(-1)
    assert max(abs(pearson(part, -3 * part)) for part in a.split(10)) <= 1, "rounding took it past 1"
    assert np.isnan(pearson(a, torch.ones(1000)))
    assert np.isnan(pearson(a, torch.full((1000,), float("nan"))))


def test_rescaling_with_the_maximum_is_what_si_adds_to_its_importance() -> None:
    course = begun(made(), observed(si(XI), *ALL))
    advance(course, 12)
    state = course.state
    own = measures.of_paths({"si": state.acting, "siu": state.watching[0]}, course.weights, XI)
    assert torch.equal(own["siu"], flat(omega(state.watching[0], course.weights, XI)))
    assert (own["siu_unclipped"] < 0).any()
    assert torch.equal(own["siu_unclipped"] > 0, own["siu_raw"] > 0)


def test_weights_of_a_scatter_plot_are_drawn_without_replacement_and_are_nearly_exact() -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0)).exp() * 1e-9
    scatter = drawn({"a": x, "b": 2 * x}, SEED)
    assert sorted(scatter["a"]) == pytest.approx(sorted(x.tolist()), rel=2**-12)
    assert (scatter["b"] == 2 * scatter["a"]).all()  # the same weights
    assert len(set(scatter["a"].view(np.int32) % 2**12)) == 1
    assert shortened(np.array([-1.5, 0.0], np.float32)).tolist() == [-1.5, 0.0]


def test_the_file_of_a_scatter_plot_repeats_and_has_no_pickles(tmp_path: Path) -> None:
    scatter = {"si": np.arange(5, dtype=np.float32)}
    (tmp_path / "made.npz").write_bytes(npz(scatter, "c1", 3))
    assert npz(scatter, "c1", 3) == (tmp_path / "made.npz").read_bytes()
    with np.load(tmp_path / "made.npz", allow_pickle=False) as file:
        assert (str(file["run"]), int(file["seed"]), file["si"].tolist()) == ("c1", 3, [0, 1, 2, 3, 4])


# --- the files -------------------------------------------------------------------------------------------------------

TINY = (
    "benchmark.n_tasks=2", "iterations=6", "model.hidden=[5]", "method=si", "optim=adam_reset", "lam=0.5",
    "reinit=true",    "+benchmark.protocol.figures.full_every=2", "+benchmark.protocol.figures.points=3",
)  # fmt: skip


def written(folder: Path, *overrides: str) -> Path:
    """Run the figures of the digits into a folder."""
    return program.measure_missing(unifying.PROGRAM, [*TINY, *overrides, f"results_dir={folder}"])


def contents(folder: Path) -> dict[str, str]:
    """What does not change between two calls: all but networks.csv."""
    return {name: (folder / name).read_text() for name in UNIFYING if name != "networks.csv"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder of seed 1."""
    folder = tmp_path_factory.mktemp("results")
    written(folder, "seeds=[1]")
    return folder


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    """A copy of it, to write into; its folder of the figures is `copy / unifying_figures_split_digits`."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


def test_a_second_seed_and_a_control_leave_the_rows_of_the_first_as_they_are(copy: Path) -> None:
    folder = copy / "unifying_figures_split_digits"
    first, scatter = contents(folder), (folder / "scatter.npz").read_bytes()
    written(copy, "seeds=[2]")
    written(copy, "seeds=[2]", "lam=0")
    for name, text in contents(folder).items():
        assert text.startswith(first[name])
    assert (folder / "scatter.npz").read_bytes() == scatter
    summed = pd.read_csv(folder / "summed.csv")
    assert summed.groupby(["run", "seed"], sort=False).ngroups == 3
    with_full = summed[summed["full"].notna()]
    assert set(zip(with_full["run"], with_full["seed"], with_full["task"], strict=True)) == {("c0.5_reinit", 1, 1)}
    assert set(pd.read_csv(folder / "noise.csv")["seed"]) == {1}
    networks = pd.read_csv(folder / "networks.csv")
    assert networks[["run", "seed", "lam"]].to_numpy().tolist() == [
        ["c0.5_reinit", 1, 0.5], ["c0.5_reinit", 2, 0.5], ["c0_reinit", 2, 0.0],
    ]  # fmt: skip
    both = summed[(summed["seed"] == 2) & (summed["task"] == 1)].set_index("run")  # no penalty before the second task
    assert both.loc["c0_reinit", "si"].tolist() == both.loc["c0.5_reinit", "si"].tolist()
    later = summed[(summed["seed"] == 2) & (summed["task"] == 2)].set_index("run")
    assert later.loc["c0_reinit", "si"].tolist() != later.loc["c0.5_reinit", "si"].tolist()


def test_the_same_seed_again_gives_the_same_rows(copy: Path) -> None:
    folder = copy / "unifying_figures_split_digits"
    written(copy, "seeds=[2]")
    before, scatter = contents(folder), (folder / "scatter.npz").read_bytes()
    written(copy, "seeds=[1]")  # still the one that is looked at in detail
    assert contents(folder) == before
    assert (folder / "scatter.npz").read_bytes() == scatter
    assert pd.read_csv(folder / "networks.csv")["seed"].tolist() == [1, 2]


def test_the_run_is_the_one_that_a_study_trains(results: Path, tmp_path: Path) -> None:
    """Without anybody watching: the same accuracy after the last task."""
    own = [one for one in TINY if not one.startswith("+")]
    folder = study.compute_missing(cli.arms(*own, "seeds=[1]", f"results_dir={tmp_path}"), "made", cores=1).folder
    networks = pd.read_csv(results / "unifying_figures_split_digits" / "networks.csv")
    assert networks["accuracy"].item() == pytest.approx(pd.read_csv(folder / "runs.csv")["accuracy"].item(), rel=1e-5)
    with pytest.raises(UserError, match="is the folder of a study; set name="):
        written(tmp_path, "seeds=[1]", f"name={folder.name}")


def test_what_does_not_belong_together_is_refused(copy: Path) -> None:
    folder = copy / "unifying_figures_split_digits"
    for overrides, message in (
        (("model.hidden=[6]",), "holds another configuration; set name="),
        (("method=ewc",), "method=ewc: the figures follow a run of method=si"),
        (("arms=[{lam: 1}, {lam: 2}]", "~lam"), "arms=2 of them|lam"),
        (
            ("+benchmark.protocol.figures.ful=2",),
            "benchmark.protocol.figures.ful: unknown key; allowed: examples, many,",
        ),
        (("benchmark.protocol.figures.points=0",), "figures.points=0: must be an integer of at least 1$"),
        (("+benchmark.protocol.figures.examples=0",), "figures.examples=0: must be an integer of at least 1, or null"),
        (("+benchmark.protocol.figures.many=a",), "figures.many=a: must be an integer of at least 1, or null for none"),
    ):
        with pytest.raises(UserError, match=message):
            written(copy, "seeds=[1]", *overrides)
    path = folder / "summed.csv"
    path.write_text(path.read_text().replace(",1,", ",7,", 1))
    with pytest.raises(UserError, match=r"summed\.csv: edited since the run wrote it"):
        written(copy, "seeds=[1]")


def test_a_run_that_diverges_is_told_and_has_no_correlations(tmp_path: Path) -> None:
    folder = written(tmp_path, "seeds=[1]", "optim.lr=1e30")
    assert pd.read_csv(folder / "networks.csv")["status"].item() == "diverged"
    last = pd.read_csv(folder / "correlations.csv").query("task == 2 and x == 'si_raw'")
    assert last["r"].isna().all()


@pytest.mark.parametrize(
    ("name", "lam", "model"),
    [("permuted_mnist", 0.2, "mlp"), ("cifar10_100", 5.0, "keras_cnn")],
    ids=["mnist", "cifar"],
)
def test_the_studies_are_the_published_runs(name: str, lam: float, model: str) -> None:
    """Table F.2 of the paper; seeds of appendix F.9; figure 1 has the full gradient of Permuted MNIST at every step."""
    for scale in ("smoke", "cpu", "paper"):
        (cfg,) = cli.arms(f"study=unifying_figures_{name}", f"scale={scale}")
        check(cfg)
        assert (cfg["lam"], cfg["reinit"], cfg["method"]["name"], cfg["model"]["name"]) == (lam, True, "si", model)
        assert cfg["optim"]["name"] == "adam_tf" and cfg["optim"]["reset"] is True
    figures = cfg["benchmark"]["protocol"]["figures"]
    assert len(cfg["seeds"]) == 5
    assert figures["full_every"] == (1 if name == "permuted_mnist" else None)
    assert figures["many"] == (30000 if name == "permuted_mnist" else 5000)
    assert schedule(4680, 234, 1, 100).every == 20


def test_the_first_task_and_its_first_steps_are_the_published_run_cut_short() -> None:
    """Another folder, fewer tasks or steps, no full gradient: the rest is the same."""
    (whole,) = cli.arms("study=unifying_figures_permuted_mnist", "scale=paper")
    (task,) = cli.arms("study=unifying_first_task_permuted_mnist")
    (steps,) = cli.arms("study=unifying_first_steps_permuted_mnist")
    for cut in (task, steps):
        check(cut)
        assert (cut["scale"], cut["name"], cut["benchmark"]["n_tasks"]) == ("paper", whole["name"], 1)
        assert cut["benchmark"]["protocol"]["figures"]["full_every"] is None
        assert all(cut[key] == whole[key] for key in ("lam", "reinit", "model", "optim", "method", "batch_size"))
    assert (task["suffix"], steps["suffix"]) == ("_first_task", "_first_steps")
    assert (task["iterations"], steps["iterations"], len(task["seeds"]), len(steps["seeds"])) == (4680, 20, 5, 20)
    (smoke,) = cli.arms("study=unifying_first_steps_permuted_mnist", "scale=smoke")
    assert smoke["suffix"] == "_first_steps_smoke"
