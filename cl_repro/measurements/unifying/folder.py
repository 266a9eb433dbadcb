"""The figures as a program: one run of SI through all tasks, and everything that is measured beside it.

A cell is a run, named after the lambda of the penalty and the re-initialisation, and a seed; runs of one folder share
everything else. The first cell of a folder is looked at in detail: it alone has the full gradient of task 1, and the
weights of scatter plots. The folder is <results_dir>/unifying_figures_<benchmark>, if nothing says another name.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_repro.common.errors import UserError
from cl_repro.common.rules import at_least, or_null
from cl_repro.measurements.program import Bench, Program, settings
from cl_repro.measurements.unifying.watch import Settings, watch
from cl_repro.records import Row, identity
from cl_repro.records.measured import UNIFYING
from cl_repro.study import compose, config, grid, study
from cl_repro.study.grid import Arm
from cl_repro.study.jobs import Job

SCATTER = "scatter.npz"


def arms_of(overrides: Sequence[str]) -> list[Arm]:
    """The one run of a command line, with the config_id that all runs of its folder have."""
    # The name as an override of its own: it counts more than a study's, and less than one that is typed.
    cfgs = compose.from_command_line(["name=unifying_figures_${benchmark.name}", *overrides])
    cfg = cfgs[0]
    if len(cfgs) > 1:
        raise UserError(f"arms={len(cfgs)} of them: the figures follow one run; leave out arms=")
    config.check(cfg)
    config.check_one_lambda(cfg)
    if cfg["method"]["name"] != "si":
        raise UserError(f"method={cfg['method']['name']}: the figures follow a run of method=si")
    shared = {key: value for key, value in identity.science(cfg).items() if key != "reinit"}
    key = identity.digest([shared, settings_of(cfg).examples], 4)
    label = f"c{cfg['lam']:g}" + ("_reinit" if cfg["reinit"] else "")
    return [grid.make_arm(cfg)._replace(label=label, config_id=key)]


def measure(bench: Bench, job: Job) -> dict[str, list[Row]]:
    """Train and watch a seed of the run; the weights of scatter plots go to a file of their own first."""
    [arm], [cell] = job.arms, job.chunk
    cfg, looks, store = arm.cfg, settings_of(arm.cfg), bench.store(job.folder)
    in_detail = not store.runs
    found = watch(
        bench.experiment(arm, job.device),
        bench.method(cfg),
        cfg["method"]["xi"],
        cell.seed,
        cfg["lam"],
        looks,
        in_detail,
        bench.report,
    )
    if found.scatter:
        with store.lock:
            store.replace({SCATTER: npz(found.scatter, arm.label, cell.seed)})
    own = {"lam": float(cfg["lam"]), "reinit": cfg["reinit"], "examples": looks.examples, "many": looks.many}
    found.rows["networks"] = [own | row for row in found.rows["networks"]]
    return {f"{name}.csv": rows for name, rows in found.rows.items()}


COUNT = at_least(1)
OR_NONE = or_null(COUNT, "none")
RULES = {"examples": OR_NONE, "many": OR_NONE, "points": COUNT, "full_every": OR_NONE, "dense": COUNT}


def settings_of(cfg: dict[str, Any]) -> Settings:
    """What is looked at; see conf/study/unifying_figures_permuted_mnist.yaml. Raises as `settings`."""
    examples = (cfg["benchmark"].get("protocol") or {}).get("importance_n", 1000)
    made = {"examples": examples, "many": None, "points": 200, "full_every": None, "dense": 100}
    return Settings(**settings(cfg, "figures", made, RULES))


def npz(scatter: dict[str, NDArray[np.float32]], run: str, seed: int) -> bytes:
    """The weights of scatter plots as a compressed file, the same bytes for the same weights; no pickles in it."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, run=np.array(run), seed=np.array(seed), **scatter)
    return content.getvalue()


def steps(bench: Bench, job: Job) -> int:
    """Of all tasks."""
    experiment = bench.experiment(job.arms[0], job.device)
    return sum(map(experiment.steps, range(experiment.benchmark.n_tasks)))


def configs(arms: list[Arm]) -> dict[str, Any]:
    """The configuration of the run, and what is looked at."""
    [arm] = arms
    own = {"figures": settings_of(arm.cfg)._asdict()}
    return {f"{arm.config_id}_{arm.label}": study.public(arm.cfg) | own}


PROGRAM = Program("unifying", UNIFYING, ("run", "seed"), arms_of, configs, measure, one_configuration=True, size=steps)
