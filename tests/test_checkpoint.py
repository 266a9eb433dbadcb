"""A chunk that stops between two tasks goes on as if it had not stopped; what is no checkpoint of it is refused."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cli
import pytest
import torch
from made_experiments import SHARED, made_experiment
from made_trees import same

from cl_repro import checkpoint, engine, provenance, study, worker
from cl_repro.config import CONF
from cl_repro.engine import Progress, Replica
from cl_repro.errors import UserError
from cl_repro.grid import chunk_id
from cl_repro.methods.ewc import ewc
from cl_repro.records import COLUMNS, checkpoint_file
from cl_repro.types import Method

HERE = {"git_sha": "abc", "torch": "2"}
ROWS = [Replica(2, 10.0, SHARED), Replica(1, 1e3, SHARED), Replica(2, 0.1, SHARED)]
ON_DIGITS = ["iterations=6", "grid.lambdas=[1,100]", "seeds=[2,1]"]
NEEDS = {
    "gpm": ["optim=sgd", "method.n=50"],
    "ogd": ["optim=sgd", "method.n=20"],
    "la_maml": ["optim=sgd", "grid.lambdas=[0.01,0.1]"],
}
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def sliced(experiment: engine.Experiment, method: Method, rows: list[Replica]) -> Progress:
    """Through all tasks, each from the checkpoint that the one before has left."""
    at, seeds = None, [row.seed for row in rows]
    for learned in range(1, experiment.benchmark.n_tasks + 1):
        at = next(engine.stages(experiment, method, rows, {}, begun=at))
        assert at.learned == learned
        at = checkpoint.load(checkpoint.dump(at, experiment, HERE), experiment, seeds, HERE)
        assert at
    return at


def through(experiment: engine.Experiment, method: Method, rows: list[Replica]) -> Progress:
    """Through all tasks at once."""
    *_, at = engine.stages(experiment, method, rows, {})
    return at


@pytest.mark.parametrize("max_replicas", [1, 4])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_in_slices_is_the_run(name: str, max_replicas: int) -> None:
    """Every method as it is configured: the same weights, to the last bit."""
    arms = cli.arms(f"method={name}", *ON_DIGITS, *NEEDS.get(name, []), f"max_replicas={max_replicas}")
    planned, workshop = study.plan(arms), worker.Workshop(lambda *_: None)
    [arm] = planned.arms
    experiment, method = workshop.experiment(arm, "cpu"), workshop.method(arm.cfg)
    rows = [Replica(cell.seed, cell.lam or 0.0, workshop.estimator(arm.cfg)) for cell in planned.chunks[-1]]
    expected, found = through(experiment, method, rows), sliced(experiment, method, rows)
    assert same(found.stack.params, expected.stack.params)
    one, other = (engine.outcomes(experiment, method, at) for at in (found, expected))
    for a, b in zip(one, other, strict=True):
        assert (a.accuracy == b.accuracy).all()
        assert (a.traces, a.storage, a.finite) == (b.traces, b.storage, True)
        assert a.representation == pytest.approx(b.representation, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("share", [True, False])
def test_moments_and_a_shared_first_task_are_kept_where_they_count(reset: bool, share: bool) -> None:
    experiment = made_experiment(reset_optimiser=reset, share_first_task=share)
    expected, found = through(experiment, ewc(), ROWS), sliced(experiment, ewc(), ROWS)
    assert same(found.stack.params, expected.stack.params)
    sizes = [len(checkpoint.dump(expected, experiment._replace(reset_optimiser=r), HERE)) for r in (True, False)]
    weights = sum(p.nbytes for p in expected.stack.params.values())
    assert sizes[1] - sizes[0] == pytest.approx(2 * weights, rel=0.1)


def test_seconds_of_slices_add_up() -> None:
    """What a shared first task took counts in full for each replica, also after a stop."""
    experiment = made_experiment(share_first_task=True)
    at = next(engine.stages(experiment, ewc(), ROWS, trunks := {}))
    [trunk] = trunks.values()
    assert at.stack.seconds.train == pytest.approx(3 * trunk.stack.seconds.train / 2)
    before = at.stack.seconds.train
    again = checkpoint.load(checkpoint.dump(at, experiment, HERE), experiment, [2, 1, 2], HERE)
    assert again
    assert again.stack.seconds == at.stack.seconds
    *_, at = engine.stages(experiment, ewc(), ROWS, {}, begun=again)
    assert engine.outcomes(experiment, ewc(), at)[0].seconds.train > before / 3 > 0


# --- a study ----------------------------------------------------------------------------------------------------------


def jobs(folder: Path, *overrides: str, deadline: float | None = None) -> list[worker.Job]:
    """The chunks of a small study."""
    planned = study.plan(cli.arms("iterations=3", "grid.lambdas=[10]", "seeds=[1]", *overrides))
    source = provenance.Source("abc", dirty=False)
    return [worker.Job(chunk, planned.arms, folder, "cpu", source, deadline) for chunk in planned.chunks]


def fresh() -> worker.Workshop:
    """What a new process has."""
    return worker.Workshop(lambda *_: None)


def test_a_chunk_stops_after_the_task_at_which_the_time_is_over(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, deadline=0.0)
    path = checkpoint_file(tmp_path, chunk_id(job.chunk))
    for _ in range(4):
        assert fresh().compute(job) == worker.STOPPED
        assert path.exists()
    assert fresh().compute(job) == worker.DONE
    assert not path.exists()
    [whole] = jobs(tmp_path / "other")
    rows, expected = fresh().rows(job._replace(deadline=None)), fresh().rows(whole)
    for name in COLUMNS.keys() - {"runs.csv"}:
        assert rows[name] == expected[name]


@pytest.mark.parametrize("change", ["git_sha", "dirty", "data"])
def test_a_chunk_of_other_code_or_data_begins_again(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = jobs(tmp_path, deadline=0.0)
    with pytest.raises(worker.Stopped):
        fresh().rows(job)
    if change != "data":
        other = {"git_sha": "def", "dirty": True}
        job = job._replace(source=job.source._replace(**{change: other[change]}))
    else:
        of = engine.Experiment.__new__
        monkeypatch.setattr(
            engine.Experiment,
            "__new__",
            lambda cls, **given: of(cls, **given | {"benchmark": given["benchmark"]._replace(checksum="another")}),
        )
    learned: list[int] = []
    with pytest.raises(worker.Stopped):
        worker.Workshop(lambda done, task, loss: learned.append(task)).rows(job)
    assert "of another commit, torch, machine or data: its runs begin again" in capsys.readouterr().err
    path = checkpoint_file(tmp_path, chunk_id(job.chunk))
    at = torch.load(path, weights_only=True)
    assert at["learned"] == 1


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def damaged(content: bytes, executed: Path) -> dict[str, Callable[[Path], Any]]:
    """Ways to write something else."""
    found = torch.load(io.BytesIO(content), weights_only=True)
    return {
        "short": lambda path: path.write_bytes(content[: len(content) // 2]),
        "empty": lambda path: path.write_bytes(b""),
        "code": lambda path: torch.save(found | {"state": Payload(executed)}, path),
        "list": lambda path: torch.save([torch.zeros(3)], path),
        "seeds": lambda path: torch.save(found | {"seeds": [7]}, path),
        "type": lambda path: torch.save(found | {"state": ("os", "system", ["true"])}, path),
        "module": lambda path: torch.save(found | {"state": ("not.a.module", "State", [])}, path),
    }


@pytest.mark.parametrize("how", ["short", "empty", "code", "list", "seeds", "type", "module"])
def test_what_is_no_checkpoint_of_the_chunk_is_named_and_runs_nothing(how: str, tmp_path: Path) -> None:
    [job] = jobs(tmp_path, deadline=0.0)
    with pytest.raises(worker.Stopped):
        fresh().rows(job)
    path = checkpoint_file(tmp_path, chunk_id(job.chunk))
    damaged(path.read_bytes(), tmp_path / "executed")[how](path)
    with pytest.raises(UserError, match=r"\.checkpoint: truncated or edited; remove it") as error:
        fresh().rows(job)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()
    path.unlink()
    with pytest.raises(worker.Stopped):
        fresh().rows(job)


def test_a_state_that_no_file_could_hold_is_named() -> None:
    class Local(NamedTuple):
        x: int

    for state, name in ((Local(1), "Local"), ({"a": 1.0}, "float"), ([torch.zeros(1)], "list")):
        with pytest.raises(TypeError, match=name):
            checkpoint.plain(state)
