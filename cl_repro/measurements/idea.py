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
import yaml
from torch import Tensor

from cl_repro import engine
from cl_repro.common.errors import UserError
from cl_repro.common.rules import at_least
from cl_repro.common.tree import flat
from cl_repro.engine import Experiment, Replica, Stack
from cl_repro.engine.boundary import evaluate
from cl_repro.engine.stack import start
from cl_repro.measurements.program import Bench, Program, settings
from cl_repro.records import Folder, Row, identity, read_bytes
from cl_repro.records.measured import IDEA
from cl_repro.study import compose, config, grid, study
from cl_repro.study.grid import Arm
from cl_repro.study.jobs import Job
from cl_repro.study.worker import Workshop
from cl_repro.types import Method, Tree

MARGIN = 0.35  # of the paths' extent, around them
TOGETHER = 50  # networks evaluated as one stack
MEASURED = ("x", "y", "off_plane", "accuracy_a", "accuracy_b")  # of a point of a path


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


def arms_of(overrides: Sequence[str]) -> list[Arm]:
    """The arms of a command line, with config_ids that name all that the picture depends on."""
    arms = [grid.make_arm(cfg) for cfg in compose.from_command_line(overrides)]
    for arm in arms:
        config.check(arm.cfg)
        config.check_one_lambda(arm.cfg)
    return [arm._replace(config_id=picture_id(arm.cfg)) for arm in arms]


def picture_id(cfg: dict[str, Any]) -> str:
    """Names what an arm of the picture is, also by what an earlier version has recorded of it."""
    decides = identity.science(dict.fromkeys((*identity.SCIENCE, *identity.SWITCHES)) | cfg)
    return identity.digest([decides, cfg["lam"], cfg["seeds"], settings_of(cfg)], 4)


def settings_of(cfg: dict[str, Any]) -> dict[str, int]:
    """Points along each side of the plane, and steps between two points of a path: `benchmark.protocol.idea`."""
    return settings(cfg, "idea", {"points": 41, "every": 20}, {"points": at_least(2), "every": at_least(1)})


def check(bench: Bench, arms: list[Arm], device: str) -> None:
    """Refuse what is no picture of two tasks, and a folder that has another."""
    check_arms(bench, arms)
    experiment, seeds = bench.experiment(arms[0], device), arms[0].cfg["seeds"]
    if experiment.benchmark.n_tasks != 2 or len(seeds) != 1 or len(arms) < 2:
        raise UserError(
            f"benchmark.n_tasks={experiment.benchmark.n_tasks} with seeds={seeds} and {len(arms)} arms: the picture is "
            "of two tasks, one seed and at least two arms"
        )
    if start(experiment, seeds).buffers:
        raise UserError(
            f"model={arms[0].cfg['model']['name']}: a point of the plane is made of parameters alone, and this network "
            "has running statistics, too"
        )
    folder = grid.folder_of(arms[0].cfg)
    if (folder / "plane.csv").exists() and recorded(folder) != {arm.config_id for arm in arms}:
        raise UserError(f"{folder}: holds another picture; set name= to another")


def check_arms(workshop: Workshop, arms: Sequence[Arm]) -> None:
    """Refuse arms that do not share all but the method, and methods whose paths or points would be of something else.

    Raises:
        UserError: which method, or which setting.
    """
    for arm in arms:
        method, name = workshop.method(arm.cfg), arm.cfg["method"]["name"]
        if method.predict:
            raise UserError(f"method={name}: a point of the plane answers as its network does")
        if method.needs.from_start:
            raise UserError(f"method={name}: it acts in task A, so that its path does not begin where the others do")
        of_first, of_arm = map(shared, (arms[0].cfg, arm.cfg))
        for key in of_arm:
            if of_arm[key] != of_first[key]:
                raise UserError(f"{key}: arms of the picture differ in method, fisher and lam alone, {arm.label} in it")


def shared(cfg: dict[str, Any]) -> dict[str, Any]:
    """What arms of a picture must have in common, the same text for the same: code by any name it has had."""
    found = identity.science(cfg) | {"benchmark.protocol.idea": settings_of(cfg)}
    return {key: identity.canonical(value) for key, value in found.items() if key not in ("method", "fisher")}


def recorded(folder: Path) -> set[str]:
    """Names of the arms of the picture in a folder: those of the last command, as none adds to it."""
    names = Folder(folder).provenance()["invocations"][-1]["config_ids"]
    return {picture_id(yaml.safe_load(read_bytes(folder / "configs" / f"{name}.yaml"))) for name in names}


def measure(bench: Bench, job: Job) -> dict[str, list[Row]]:
    """Train all arms, and look at their paths and at the plane."""
    arms, cfg, seed = job.arms, job.arms[0].cfg, job.chunk[0].seed
    experiment, asked = bench.experiment(arms[0], job.device), settings_of(cfg)
    every, trunk = asked["every"], start(experiment, [seed])
    walked = [
        walk(
            experiment,
            Replica(seed, float(arm.cfg["lam"]), bench.estimator(arm.cfg)),
            bench.method(arm.cfg),
            every,
            bench.trunks,
        )
        for arm in arms
    ]
    plane = through(walked[0][0], walked[-1][-1], walked[0][-1])
    paths: list[Row] = []
    for arm, path in zip(arms, walked, strict=True):
        xy, off = plane.coordinates(path)
        lam = float(arm.cfg["lam"]) if arm.uses_lambda else None
        numbers = torch.cat([xy.cpu(), off[:, None].cpu(), accuracies(experiment, trunk, path)], 1).tolist()
        paths += [
            {"arm": arm.label, "lambda": lam, "step": i * every, **dict(zip(MEASURED, of_point, strict=True))}
            for i, of_point in enumerate(numbers)
        ]
    return {"paths.csv": paths, "plane.csv": surface(experiment, trunk, plane, walked, asked["points"])}


def walk(
    experiment: Experiment, replica: Replica, method: Method, every: int, trunks: dict[str, engine.Trunk]
) -> Tensor:
    """Weights [steps / every + 1, D] while task B is learned, the first those after task A."""
    stages = engine.stages(experiment, method, [replica], trunks, every=every)
    return torch.stack([flat(at.stack.params).detach().double() for at in stages if at.learned])


def surface(experiment: Experiment, like: Stack, plane: Plane, walked: Sequence[Tensor], points: int) -> list[Row]:
    """Accuracies on a square lattice that all paths lie within, row by row."""
    xy = torch.cat([plane.coordinates(path)[0] for path in walked])
    low, high = xy.min(0).values, xy.max(0).values
    middle, half = (low + high) / 2, float((high - low).max()) * (0.5 + MARGIN)
    side = np.linspace(-half, half, points)
    lattice = torch.tensor([[x, y] for y in side for x in side], device=middle.device) + middle
    parts = [torch.cat([at.cpu(), accuracies(experiment, like, plane.points(at))], 1) for at in lattice.split(TOGETHER)]
    return [dict(zip(IDEA["plane.csv"], at, strict=True)) for at in torch.cat(parts).tolist()]


def accuracies(experiment: Experiment, like: Stack, weights: Tensor) -> Tensor:
    """Test accuracies [N, 2] on both tasks of networks with weights [N, D], and the buffers of `like`."""
    found = []
    for part in weights.split(TOGETHER):
        n = len(part)
        buffers = {name: value.expand(n, *value.shape[1:]) for name, value in like.buffers.items()}
        stack = Stack(like.seeds * n, shaped(part, like.params), buffers, like.optimiser)
        found.append(torch.from_numpy(evaluate(experiment, stack, 1)))
    return torch.cat(found)


def shaped(weights: Tensor, like: Tree) -> Tree:
    """The inverse of `tree.flat`, for N replicas: [N, D] -> {name: [N, *shape]}."""
    parts = weights.split([p[0].numel() for p in like.values()], 1)
    return {name: part.view(-1, *p.shape[1:]).to(p.dtype) for (name, p), part in zip(like.items(), parts, strict=True)}


PROGRAM = Program(
    "idea",
    IDEA,
    (),  # one cell is the whole
    arms_of,
    lambda arms: {arm.config_id: study.public(arm.cfg) | {"idea": settings_of(arm.cfg)} for arm in arms},
    measure,
    check,
)
