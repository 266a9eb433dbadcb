"""The picture of EWC (`idea`) in a plane of parameter space: where two tasks are solved, and where training goes.

After Kirkpatrick et al. (2017), figure 1, which is drawn by hand. A network learns task A once. From there it learns
task B under each method of a study. The plane goes through the weights after A and the ends of the first and of the
last method; paths are projected on it, and the accuracies on both tasks are measured at points of the plane itself.
Coordinates are Euclidean distances in the space of all parameters.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cl_repro import compose, config, engine, grid, provenance, runtime, study
from cl_repro.engine import Experiment, Replica, Stack
from cl_repro.engine.boundary import evaluate
from cl_repro.engine.stack import start
from cl_repro.errors import UserError
from cl_repro.records import Folder, Row, to_csv
from cl_repro.records.schema import IDEA
from cl_repro.types import Method, Tree
from cl_repro.worker import Workshop

MARGIN = 0.35  # of the paths' extent, around them
TOGETHER = 50  # networks evaluated as one stack


class Plane(NamedTuple):
    """A plane through three points of parameter space."""

    origin: Tensor  # [D]
    axes: Tensor  # [2, D], orthonormal

    def coordinates(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Where weights [N, D] lie: (x, y) [N, 2] of their projections, and their distances [N] from the plane."""
        d = weights - self.origin
        xy = d @ self.axes.T
        return xy, (d - xy @ self.axes).norm(dim=1)

    def points(self, xy: Tensor) -> Tensor:
        """Weights [N, D] at coordinates [N, 2]."""
        return self.origin + xy @ self.axes


def through(origin: Tensor, first: Tensor, second: Tensor) -> Plane:
    """The plane through three points [D]; its x axis points from the origin to the first.

    Raises:
        UserError: if they lie on a line, so that there is no plane.
    """
    u, v = first - origin, second - origin
    e = u / u.norm()
    rest = v - (v @ e) * e
    if not (u.norm() > 0 and rest.norm() > 1e-6 * v.norm()):
        raise UserError("arms: the ends of the first and of the last lie on a line with the weights after task A")
    return Plane(origin, torch.stack([e, rest / rest.norm()]))


def run(overrides: Sequence[str]) -> Path:
    """Train and measure what a command line composes; files of an earlier call are replaced.

    Args:
        overrides: Hydra's, e.g. study=idea seeds=[2].

    Returns:
        The results folder, <results_dir>/<name>.

    Raises:
        UserError: bad values, not two tasks or not one seed, a folder of something else.
    """
    cfgs = compose.from_command_line(overrides)
    for cfg in cfgs:
        config.check(cfg)
        config.check_one_lambda(cfg)
    device, workshop = runtime.resolve_device(cfgs[0]["device"]), Workshop(lambda *_: None)
    arms = [grid.make_arm(cfg) for cfg in cfgs]
    check_arms(workshop, arms)
    study.check_sizes(workshop, arms, device)
    study.check_networks(workshop, arms, device)
    experiment = workshop.experiment(arms[0], device)
    if experiment.benchmark.n_tasks != 2 or len(cfgs[0]["seeds"]) != 1 or len(arms) < 2:
        raise UserError(
            f"benchmark.n_tasks={experiment.benchmark.n_tasks} with seeds={cfgs[0]['seeds']} and {len(arms)} arms: the "
            "picture is of two tasks, one seed and at least two arms"
        )
    points, every = settings_of(cfgs[0])
    trunk = start(experiment, cfgs[0]["seeds"])
    if trunk.buffers:
        raise UserError(
            f"model={cfgs[0]['model']['name']}: a point of the plane is made of parameters alone, and this network has "
            "running statistics, too"
        )
    store = Folder(Path(cfgs[0]["results_dir"]) / (cfgs[0]["name"] + cfgs[0]["suffix"]))
    store.unedited(IDEA)
    trunks: dict[str, engine.Trunk] = {}
    replicas = [Replica(cfg["seeds"][0], float(cfg["lam"]), workshop.estimator(cfg)) for cfg in cfgs]
    walked = [
        walk(experiment, replica, workshop.method(cfg), every, trunks)
        for replica, cfg in zip(replicas, cfgs, strict=True)
    ]
    check_begin_together(arms, walked)
    store.create()
    note(store, overrides, arms, experiment)
    plane = through(walked[0][0], walked[-1][-1], walked[0][-1])
    rows: dict[str, list[Row]] = {"plane.csv": surface(experiment, trunk, plane, walked, points), "paths.csv": []}
    for arm, replica, path in zip(arms, replicas, walked, strict=True):
        xy, off = plane.coordinates(path)
        right = accuracies(experiment, trunk, path)
        rows["paths.csv"] += [
            {"arm": arm.label, "lambda": f"{replica.lam:g}" if arm.uses_lambda else "", "step": i * every}
            | numbers(x=xy[i, 0], y=xy[i, 1], off_plane=off[i], accuracy_a=right[i, 0], accuracy_b=right[i, 1])
            for i in range(len(path))
        ]
    with store.lock:
        store.replace({name: to_csv(columns, rows[name]) for name, columns in IDEA.items()})
    return store.folder


def check_arms(workshop: Workshop, arms: Sequence[grid.Arm]) -> None:
    """Refuse arms that do not share all but the method, and methods whose answers are not the network's.

    Raises:
        UserError: which method, or which setting.
    """
    for arm in arms:
        if workshop.method(arm.cfg).predict:
            raise UserError(f"method={arm.cfg['method']['name']}: a point of the plane answers as its network does")
        of_first, of_arm = map(grid.science, (arms[0].cfg, arm.cfg))
        for key in of_arm.keys() - {"method", "fisher"}:
            if of_arm[key] != of_first[key]:
                raise UserError(f"{key}: arms of the picture differ in method, fisher and lam alone, {arm.label} in it")


def check_begin_together(arms: Sequence[grid.Arm], walked: Sequence[Tensor]) -> None:
    """Refuse a method that has acted in task A already.

    Raises:
        UserError: which.
    """
    for arm, path in zip(arms, walked, strict=True):
        if not torch.equal(path[0], walked[0][0]):
            raise UserError(
                f"method={arm.cfg['method']['name']}: it acts in task A, so that its path does not begin where that of "
                f"{arms[0].label} does"
            )


def note(store: Folder, overrides: Sequence[str], arms: Sequence[grid.Arm], experiment: Experiment) -> None:
    """Command, commit, hardware, data and configurations, for provenance.json."""
    cfg = arms[0].cfg
    origin = provenance.source()._asdict() | {
        "torch": torch.__version__,
        "hardware": runtime.hardware(experiment.device),
    }
    invocation = {
        "command": provenance.command(overrides, "scripts/idea.py"),
        "started": provenance.now(),
        **origin,
        "config_ids": [arm.config_id for arm in arms],
    }
    configs = {arm.config_id: study.public(arm.cfg) for arm in arms}
    store.note_invocation(invocation, {cfg["benchmark"]["name"]: experiment.benchmark.checksum}, configs)


def settings_of(cfg: dict[str, Any]) -> tuple[int, int]:
    """Points along each side of the plane, and steps between two points of a path: `benchmark.protocol.idea`."""
    given = (cfg["benchmark"].get("protocol") or {}).get("idea") or {}
    values = [given.get("points", 41), given.get("every", 20)]
    for key, value, least in zip(("points", "every"), values, (2, 1), strict=True):
        if not (config.is_int(value) and value >= least):
            raise UserError(f"benchmark.protocol.idea.{key}={value}: must be an integer of at least {least}")
    return values[0], values[1]


def walk(
    experiment: Experiment, replica: Replica, method: Method, every: int, trunks: dict[str, engine.Trunk]
) -> Tensor:
    """Weights [steps / every + 1, D] while task B is learned, the first those after task A."""
    stages = engine.stages(experiment, method, [replica], trunks, every=every)
    return torch.cat([flat(at.stack.params) for at in stages if at.learned])


def surface(experiment: Experiment, like: Stack, plane: Plane, walked: Sequence[Tensor], points: int) -> list[Row]:
    """Accuracies on a square lattice that all paths lie within, row by row."""
    xy = torch.cat([plane.coordinates(path)[0] for path in walked])
    low, high = xy.min(0).values, xy.max(0).values
    middle, half = (low + high) / 2, float((high - low).max()) * (0.5 + MARGIN)
    side = np.linspace(-half, half, points)
    lattice = torch.tensor([[x, y] for y in side for x in side], device=middle.device) + middle
    rows = []
    for part in lattice.split(TOGETHER):
        right = accuracies(experiment, like, plane.points(part))
        rows += [numbers(x=at[0], y=at[1], accuracy_a=a, accuracy_b=b) for at, (a, b) in zip(part, right, strict=True)]
    return rows


def accuracies(experiment: Experiment, like: Stack, weights: Tensor) -> Tensor:
    """Test accuracies [N, 2] on both tasks of networks with weights [N, D], and the buffers of `like`."""
    found = []
    for part in weights.split(TOGETHER):
        n = len(part)
        buffers = {name: value.expand(n, *value.shape[1:]) for name, value in like.buffers.items()}
        stack = Stack(like.seeds * n, shaped(part, like.params), buffers, like.optimiser)
        found.append(torch.from_numpy(evaluate(experiment, stack, 1)))
    return torch.cat(found)


def flat(params: Tree) -> Tensor:
    """All parameters of one replica [1, ...] as [1, D] float64, in the order of the tree."""
    return torch.cat([p.detach().flatten(1) for p in params.values()], 1).double().clone()


def shaped(weights: Tensor, like: Tree) -> Tree:
    """The inverse of `flat`, for N replicas: [N, D] -> {name: [N, *shape]}."""
    parts = weights.split([p[0].numel() for p in like.values()], 1)
    return {name: part.view(-1, *p.shape[1:]).to(p.dtype) for (name, p), part in zip(like.items(), parts, strict=True)}


def numbers(**values: Tensor) -> Row:
    """Six digits of each."""
    return {name: f"{float(value):.6g}" for name, value in values.items()}
