"""The plane of parameter space: its geometry, the paths that lead through it, and what is measured on it."""

import csv
import json
from functools import partial

import cli
import made_cifar
import pytest
import torch
from made_experiments import digits, made_experiment, run
from made_trees import same

from cl_repro.analysis.kinds import opened
from cl_repro.common.errors import Skipping, UserError
from cl_repro.common.tree import flat
from cl_repro.engine import Replica, boundary
from cl_repro.engine.lifecycle import learn
from cl_repro.engine.stack import start
from cl_repro.importance import fisher
from cl_repro.measurements import idea, program
from cl_repro.methods.baselines import finetune
from cl_repro.methods.ewc import ewc
from cl_repro.study import grid
from cl_repro.study.config import CONF
from cl_repro.study.worker import Workshop
from cl_repro.types import Method

D = 30
SMALL = ("benchmark=split_digits", "benchmark.n_tasks=2", "scenario=task", "iterations=6", "seeds=[1]", "batch_size=16")
ARMS = ("arms=[{method: finetune},{method: ewc}]",)
measured = partial(program.measure_missing, idea.PROGRAM)
IDEA = (*SMALL, "+benchmark.protocol.idea={points: 3, every: 2}", "model.hidden=[8]", "name=idea")


def points(n: int) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def test_the_plane_goes_through_its_three_points_and_keeps_distances():
    three = points(3)
    plane = idea.through(*three)
    xy, off = plane.coordinates(three)
    assert off.max() < 1e-12
    assert torch.cdist(xy, xy).sub(torch.cdist(three, three)).abs().max() < 1e-12
    assert xy[0].abs().max() == 0
    assert xy[1, 0] > 0
    assert xy[1, 1].abs() < 1e-12
    assert (plane.axes @ plane.axes.T - torch.eye(2)).abs().max() < 1e-14


def test_coordinates_are_those_of_the_nearest_point_of_the_plane():
    plane, others = idea.through(*points(3)), points(7)
    xy, off = plane.coordinates(others)
    nearest = plane.points(xy)
    assert ((others - nearest).norm(dim=1) - off).abs().max() < 1e-12
    assert ((others - nearest) @ plane.axes.T).abs().max() < 1e-12
    assert plane.coordinates(nearest)[1].max() < 1e-12


def test_three_points_on_a_line_make_no_plane():
    origin, end = points(2)
    with pytest.raises(UserError, match="lie on a line"):
        idea.through(origin, end, origin + 0.3 * (end - origin))


@pytest.mark.parametrize(("method", "estimator", "lam"), [(finetune(), None, 0.0), (ewc(), fisher.exact(), 100.0)])
@pytest.mark.parametrize("every", [1, 5, 12])
def test_a_path_begins_after_task_a_and_ends_where_the_run_of_that_method_ends(method, estimator, lam, every):
    experiment = made_experiment(digits(2))
    trunk = start(experiment, [3])
    learn(experiment, trunk, 0, Method(), None)
    path = idea.walk(experiment, Replica(3, lam, estimator), method, every, {})
    assert len(path) == -(-12 // every) + 1
    assert same(idea.shaped(path[:1], trunk.params), trunk.params)
    expected = run(experiment, method, [Replica(3, lam, estimator)]).params
    assert same(idea.shaped(path[-1:], trunk.params), expected)


def test_accuracies_are_those_of_the_networks_with_these_weights():
    experiment = made_experiment(digits(2))
    stack = start(experiment, [1])
    learn(experiment, stack, 0, Method(), None)
    other = start(experiment, [1])
    weights = torch.stack([flat(one.params).double() for one in (stack, other)])
    found = idea.accuracies(experiment, stack, weights)
    for row, network in zip(found, (stack, other), strict=True):
        assert row.tolist() == boundary.evaluate(experiment, network, 1)[0].tolist()
    assert found[0, 0] > found[1, 0]


def test_the_files_hold_every_path_and_the_lattice_around_them_and_are_drawn(tmp_path):
    arms = "arms=[{method: finetune},{method: l2, lam: 0.1},{method: ewc, fisher: exact, lam: 100}]"
    folder = measured([*IDEA, arms, f"results_dir={tmp_path}"])
    texts = [(folder / name).read_text().splitlines() for name in ("paths.csv", "plane.csv")]
    paths, plane = (list(csv.DictReader(text)) for text in texts)
    assert [(row["arm"], row["step"]) for row in paths] == [
        (arm, f"{step}") for arm in ("finetune", "l2", "ewc-exact") for step in (0, 2, 4, 6)
    ]
    assert [row["lambda"] for row in paths[::4]] == ["", "0.1", "100"]
    for first in paths[::4]:
        assert float(first["off_plane"]) < 1e-5
        assert (first["accuracy_a"], first["accuracy_b"]) == (paths[0]["accuracy_a"], paths[0]["accuracy_b"])
    ends = [float(paths[i]["off_plane"]) for i in (3, 7, 11)]
    assert max(ends[0], ends[2]) < 1e-5 < ends[1]
    assert len(plane) == 9
    for axis in "xy":
        at = [float(row[axis]) for row in plane]
        assert min(at) < min(float(row[axis]) for row in paths)
        assert max(at) > max(float(row[axis]) for row in paths)
    [found] = opened([folder.name], folder.parent, Skipping())
    [drawing] = found.drawings()
    assert [path.suffix for path in drawing.write(tmp_path / "figures")] == [".png", ".svg"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "method").glob("*.yaml")))
def test_a_method_ends_where_its_run_ends(name):
    """Whatever it asks of the engine; but those that answer otherwise than their network does are refused."""
    (cfg,) = cli.arms(*SMALL, f"method={name}", "lam=0.5", "optim=sgd")
    workshop = Workshop(lambda *_: None)
    method, estimator, experiment = workshop.method(cfg), workshop.estimator(cfg), made_experiment(digits(2))
    if method.predict:
        with pytest.raises(UserError, match=f"method={name}: a point of the plane answers as its network does"):
            idea.check_arms(workshop, [grid.make_arm(cfg)])
        return
    replica, shape = Replica(3, 0.5, estimator), start(experiment, [3]).params
    path = idea.walk(experiment, replica, method, 5, {})
    if torch.equal(path[:1], idea.walk(experiment, Replica(3, 0.0, None), finetune(), 5, {})[:1]):
        idea.check_arms(workshop, [grid.make_arm(cfg)])
    else:
        with pytest.raises(UserError, match=f"method={name}: it acts in task A, so that its path does not begin"):
            idea.check_arms(workshop, [grid.make_arm(cfg)])
    assert len(path) == 4
    assert same(idea.shaped(path[-1:], shape), run(experiment, method, [replica]).params)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("grid=blog", "grid: this program takes one lambda, lam; choose grid=one"),
        ("arms=[{method: finetune},{method: ewc, optim.lr: 0.5}]", "optim: arms of the picture differ in method,"),
        ("arms=[{method: finetune},{method: ewc, dtype: float64}]", "dtype: arms of the picture differ in method,"),
        ("arms=[{method: finetune},{method: context}]", "method=context: a point of the plane answers as its network"),
        ("arms=[{method: finetune},{method: sharpening}]", "method=sharpening: it acts in task A, so that its path"),
        ("benchmark.n_tasks=5", "benchmark.n_tasks=5 with"),
        ("seeds=[1,2]", r"with seeds=\[1, 2\]"),
        ("+benchmark.protocol.idea={points: 1}", "benchmark.protocol.idea.points=1: must be an integer of at least 2"),
        ("+benchmark.protocol.idea={every: 0}", "benchmark.protocol.idea.every=0: must be an integer of at least 1"),
    ],
)
def test_what_is_no_picture_of_two_tasks_is_refused(tmp_path, change, told):
    cli.arms(*SMALL)
    with pytest.raises(UserError, match=told):
        program.measure_missing(
            idea.PROGRAM, [*SMALL, *([] if "arms=" in change else ARMS), change, f"results_dir={tmp_path}", "name=idea"]
        )
    assert not list(tmp_path.iterdir())


def test_arms_with_an_old_name_of_the_same_code_make_one_picture():
    first, second = (grid.make_arm(cfg) for cfg in cli.arms(*SMALL, *ARMS))
    workshop, old = Workshop(lambda *_: None), second.cfg["scenario"] | {"_target_": "cl_repro.scenarios.task"}
    assert old != first.cfg["scenario"]
    idea.check_arms(workshop, [first, second._replace(cfg=second.cfg | {"scenario": old})])
    other = {"scenario": {**old, "_target_": "cl_repro.scenarios.domain"}}
    with pytest.raises(UserError, match="scenario: arms of the picture differ in method"):
        idea.check_arms(workshop, [first, second._replace(cfg=second.cfg | other)])
    finer = {"benchmark": second.cfg["benchmark"] | {"protocol": {"idea": {"points": 5}}}}
    with pytest.raises(UserError, match=r"benchmark\.protocol\.idea: arms of the picture differ in method"):
        idea.check_arms(workshop, [first, second._replace(cfg=second.cfg | finer)])


@pytest.mark.slow
def test_a_folder_holds_one_picture(tmp_path):
    """Whatever its arms are called, and whatever an earlier version called their files."""
    given = [*IDEA, "arms=[{method: l2, lam: 0.1},{method: l2, lam: 10}]", f"results_dir={tmp_path}"]
    folder = measured(given)
    with pytest.raises(UserError, match="idea: holds another picture; set name= to another"):
        measured([*given, "seeds=[2]"])
    ids = {arm.config_id for arm in idea.arms_of(given)}
    for change in ("benchmark.protocol.idea.points=4", "iterations=8", "batch_size=8", "scenario=domain"):
        assert not ids & {arm.config_id for arm in idea.arms_of([*given, change])}
    known = json.loads((folder / "provenance.json").read_text())
    for i, path in enumerate(sorted((folder / "configs").iterdir())):
        path.rename(path.with_name(f"earlier_{i}.yaml"))
    known["invocations"][0]["config_ids"] = ["earlier_0", "earlier_1"]
    (folder / "provenance.json").write_text(json.dumps(known))
    assert measured(given) == folder


def test_the_committed_picture_would_not_be_measured_again():
    arms = idea.arms_of(["study=idea"])
    assert {arm.config_id for arm in arms} == idea.recorded(cli.ROOT / "results" / "idea")


def test_running_statistics_are_no_part_of_the_plane(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    made_cifar.write_npz(tmp_path / "data", made_cifar.small_cifar(monkeypatch, per_class=20))
    given = [change for change in SMALL if not change.startswith("benchmark=")]
    small = ("benchmark=split_cifar10", "benchmark.train_per_task=32", "model=slim_resnet18", "model.channels=8")
    with pytest.raises(UserError, match="model=slim_resnet18: a point of the plane is made of parameters alone"):
        program.measure_missing(
            idea.PROGRAM,
            [*small, *given, *ARMS, f"data_dir={tmp_path / 'data'}", f"results_dir={tmp_path / 'results'}"],
        )
    assert not (tmp_path / "results").exists()
