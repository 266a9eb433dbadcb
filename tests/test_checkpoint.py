"""A chunk that stops between two steps goes on as if it had not stopped; what is no checkpoint of it is refused."""

import io
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cli
import pytest
import torch
from made_experiments import SHARED, made_experiment
from made_networks import dropping_net
from made_trees import same
from torch.utils._pytree import tree_leaves

from cl_repro import engine
from cl_repro.engine import Progress, Replica, checkpoint, lifecycle
from cl_repro.memory import reservoir
from cl_repro.methods.ewc import ewc
from cl_repro.methods.replay import replay
from cl_repro.records import Lock, checkpoint_file
from cl_repro.records.schema import STUDY
from cl_repro.study import provenance, study, worker
from cl_repro.study.config import CONF
from cl_repro.study.grid import chunk_id
from cl_repro.study.jobs import Job, Stopped
from cl_repro.types import Method

HERE = {"git_sha": "abc", "torch": "2"}
ROWS = [Replica(2, 10.0, SHARED), Replica(1, 1e3, SHARED), Replica(2, 0.1, SHARED)]
ON_DIGITS = ["iterations=6", "grid.lambdas=[1,100]", "seeds=[2,1]"]
NEEDS = {
    "gpm": ["optim=sgd", "method.n=50"],
    "ogd": ["optim=sgd", "method.n=20"],
    "la_maml": ["optim=sgd", "optim.lr=1", "grid.lambdas=[0.01,0.1]"],
}
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def sliced(experiment: engine.Experiment, method: Method, rows: list[Replica], every: int = 1000) -> Progress:
    """Through all tasks in slices of so many steps, each from the checkpoint that the one before has left."""
    seeds, places, trunks = [row.seed for row in rows], [], {}

    def on(at: Progress, seeds: list[int]) -> Progress:
        """From a file."""
        places.append((at.learned, at.middle.taken if at.middle else 0))
        data = checkpoint.dump(at, experiment, HERE)
        assert len(data) <= 2 * held(at) + OVERHEAD
        found = checkpoint.load(data, experiment, seeds, HERE)
        assert found
        return found

    at = None
    if engine.shares_first_task(experiment, method):
        while not at or not at.learned:
            at = on(next(engine.first_task(experiment, seeds, at, every)), sorted(set(seeds)))
        engine.keep_first_task(trunks, experiment, at)
        places.pop()  # its end, from which the replicas begin
        at = None
    while not at or at.learned < experiment.benchmark.n_tasks:
        at = on(next(engine.stages(experiment, method, rows, trunks, begun=at, every=every)), seeds)
    stops = [range(0, steps, every) for steps in engine.lengths(experiment, method, seeds[0])]
    assert places == [*[(task, taken) for task, of_task in enumerate(stops) for taken in of_task][1:], (len(stops), 0)]
    return at


OVERHEAD = 200_000  # bytes: names, shapes, states of random generators


def held(at: Progress) -> int:
    """Bytes of the replicas: weights, moments, the method's state, teachers."""
    of = [at.stack.params, at.stack.buffers, dict(at.stack.optimiser.state), at.stack.stored, at.state, at.middle]
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(of) if isinstance(leaf, torch.Tensor))


def through(experiment: engine.Experiment, method: Method, rows: list[Replica]) -> Progress:
    """Through all tasks at once."""
    *_, at = engine.stages(experiment, method, rows, {})
    return at


OTHER = pytest.mark.slow  # one size of the stack for each method, and then the other
EACH = [(name, k) for i, name in enumerate(METHODS) for k in ((1, 4) if i % 2 else (4, 1))]


@pytest.mark.parametrize(
    ("name", "max_replicas"), [pytest.param(*of, marks=OTHER if i % 2 else ()) for i, of in enumerate(EACH)]
)
def test_a_run_in_slices_is_the_run(name: str, max_replicas: int) -> None:
    """Every method as it is configured: the same weights, to the last bit."""
    arms = cli.arms(f"method={name}", *ON_DIGITS, *NEEDS.get(name, []), f"max_replicas={max_replicas}")
    planned, workshop = study.plan(arms), worker.Workshop(lambda *_: None)
    [arm] = planned.arms
    experiment, method = workshop.experiment(arm, "cpu"), workshop.method(arm.cfg)
    rows = [Replica(cell.seed, cell.lam or 0.0, workshop.estimator(arm.cfg)) for cell in planned.chunks[-1]]
    expected, found = through(experiment, method, rows), sliced(experiment, method, rows, every=4)
    assert same(found.stack.params, expected.stack.params)
    one, other = (engine.outcomes(experiment, method, at) for at in (found, expected))
    for a, b in zip(one, other, strict=True):
        assert (a.accuracy == b.accuracy).all()
        assert (a.traces, a.storage, a.finite) == (b.traces, b.storage, True)
        assert a.representation == pytest.approx(b.representation, rel=0, abs=0, nan_ok=True)


REBUILT = ["method=ewc_guide", "method.rebuild_every=4"]


@pytest.mark.parametrize(
    "given",
    [
        REBUILT,
        ["method=lwf", "method.warm_up=2"],
        ["method=si", "reinit=true"],
        ["method=ewc", "optim=adam_reset"],
    ],
    ids=lambda given: given[0] + given[1],
)
def test_a_task_in_slices_of_any_size_is_the_task(given: list[str]) -> None:
    """Where more than weights and state counts: a state made anew on the way, a warm-up, other weights."""
    [arm] = study.plan(cli.arms(*ON_DIGITS[:1], "grid.lambdas=[1]", "seeds=[2]", "batch_size=16", *given)).arms
    workshop = worker.Workshop(lambda *_: None)
    experiment, method = workshop.experiment(arm, "cpu"), workshop.method(arm.cfg)
    rows = [Replica(seed, lam, workshop.estimator(arm.cfg)) for seed, lam in ((2, 1.0), (1, 10.0))]
    expected = through(experiment, method, rows)
    for every in (1, 4):
        assert same(sliced(experiment, method, rows, every).stack.params, expected.stack.params)


def test_what_training_draws_at_every_step_goes_on_where_it_stopped() -> None:
    """Dropout of a task's examples and of those recalled, and statistics of batches."""
    experiment = made_experiment(net=dropping_net(), share_first_task=True)
    method = replay(reservoir(20))
    rows = [row._replace(estimator=None) for row in ROWS]
    expected, found = through(experiment, method, rows), sliced(experiment, method, rows, every=5)
    assert same(found.stack.params, expected.stack.params)
    assert same(found.stack.buffers, expected.stack.buffers)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("share", [True, False])
def test_moments_and_a_shared_first_task_are_kept_where_they_count(reset: bool, share: bool) -> None:
    experiment = made_experiment(reset_optimiser=reset, share_first_task=share)
    expected, found = through(experiment, ewc(), ROWS), sliced(experiment, ewc(), ROWS, every=5)
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
    assert at.stack.seconds.train > before > 0
    for found in engine.outcomes(experiment, ewc(), at):
        assert found.seconds.train == pytest.approx(at.stack.seconds.train / 3)


# --- a study ----------------------------------------------------------------------------------------------------------


def jobs(folder: Path, *overrides: str, deadline: float | None = None) -> list[Job]:
    """The chunks of a small study."""
    planned = study.plan(cli.arms("iterations=3", "grid.lambdas=[10]", "seeds=[1]", *overrides))
    source = provenance.Source("abc", dirty=False)
    return [Job(chunk, planned.arms, folder, "cpu", source, deadline) for chunk in planned.chunks]


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
    for name in STUDY.keys() - {"runs.csv"}:
        assert rows[name] == expected[name]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, [*range(50, 2001, 50)]),
        (8, [50, 150, 350, *range(550, 2001, 200), 2000]),
        (300, [50, 150, 350, 750, 1550, 2000]),
    ],
)
def test_a_task_can_be_stopped_several_times_between_two_checkpoints(
    every: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no oftener than it takes: here, where a step takes a hundredth of a second, after 0.25, 2 and 5 of them."""
    now = 0.0

    def advance(course: lifecycle.Course, steps: int, *_: object) -> None:
        nonlocal now
        course.taken, now = course.taken + steps, now + steps / 100

    monkeypatch.setattr(lifecycle, "advance", advance)
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(monotonic=lambda: now))
    [job] = jobs(Path("nowhere"), "iterations=2000", f"checkpoint_every={every}")
    experiment = fresh().experiment(job.arms[0], "cpu")
    stack = engine.start(experiment, [1])
    found = [course.taken for course in lifecycle.learning(lifecycle.begin(experiment, stack, 0, Method(), None))]
    assert found == expected


class Killed(BaseException):
    """As a signal that nothing catches."""


@pytest.mark.slow
def test_what_is_killed_at_any_moment_loses_the_work_since_the_last_checkpoint(tmp_path: Path) -> None:
    """Of 8 random moments: 50 steps and those of a report, as every span is followed by a checkpoint here."""
    steps = ["iterations=600", "benchmark.n_tasks=2", "checkpoint_every=1e-9"]
    [job], [whole] = jobs(tmp_path, *steps), jobs(tmp_path / "other", *steps)
    rng, done, killed = random.Random(3), 0, 0

    def report(n: int, task: int, loss: float) -> None:
        nonlocal done
        done += n
        if killed < 8 and rng.random() < 0.6:
            raise Killed

    while True:
        before = done
        try:
            rows = worker.Workshop(report).rows(job)
            break
        except Killed:
            killed += 1
            assert done - before <= 600
    assert killed == 8
    assert 600 < done <= 600 + 8 * 50  # of the second task; the first is shared and reports nothing
    expected = fresh().rows(whole)
    for name in STUDY.keys() - {"runs.csv"}:
        assert rows[name] == expected[name]


@pytest.fixture
def first_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of steps of first tasks, as they are taken; at a -1 that is put first, the next one is killed."""
    taken: list[int] = []
    plain = lifecycle.advance

    def advance(course: lifecycle.Course, steps: int, *rest: Any) -> None:
        if course.task == 0:
            if taken[:1] == [-1] and len(taken) > 2:
                raise Killed
            taken.append(steps)
        plain(course, steps, *rest)

    monkeypatch.setattr(lifecycle, "advance", advance)
    return taken


SHARED_BY_CHUNKS = ["iterations=200", "benchmark.n_tasks=2", "grid.lambdas=[1,10]", "max_replicas=1"]


@pytest.mark.parametrize("when", ["in its middle", "after it"])
def test_a_first_task_that_chunks_share_is_trained_once_by_all_processes(
    when: str, tmp_path: Path, first_steps: list[int]
) -> None:
    """Where it takes longer than `checkpoint_every`, whoever is killed; its rows are those of chunks that train it."""
    one, other = jobs(tmp_path, *SHARED_BY_CHUNKS, "checkpoint_every=1e-9")
    if when == "in its middle":
        first_steps.append(-1)
        with pytest.raises(Killed):
            fresh().rows(one)
        assert first_steps.pop(0) == -1
    found = [fresh().rows(job) for job in (one, other)]
    assert sum(first_steps) == 200
    expected = [fresh().rows(job) for job in jobs(tmp_path / "other", *SHARED_BY_CHUNKS)]
    assert sum(first_steps) == 3 * 200
    assert not list((tmp_path / "other").rglob("*.first_task"))
    for rows, same_rows in zip(found, expected, strict=True):
        for name in STUDY.keys() - {"runs.csv"}:
            assert rows[name] == same_rows[name]


@pytest.mark.parametrize("how", ["git_sha", "damaged", "seeds"])
def test_a_first_task_of_other_code_or_seeds_or_a_damaged_one_is_trained_anew(
    how: str, tmp_path: Path, first_steps: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = jobs(tmp_path, *SHARED_BY_CHUNKS, "checkpoint_every=1e-9")
    fresh().rows(one)
    [path] = (tmp_path / ".spool").glob("*.first_task")
    if how == "git_sha":
        other = other._replace(source=other.source._replace(git_sha="def"))
    elif how == "seeds":
        other = jobs(tmp_path, *SHARED_BY_CHUNKS, "checkpoint_every=1e-9", "seeds=[2]")[0]
    else:
        path.write_bytes(path.read_bytes()[:-1])
    fresh().rows(other)
    assert sum(first_steps) == 2 * 200
    said = f"{path}: its content is not that of its checksum; set aside as {path.stem}.damaged, its runs begin again\n"
    assert capsys.readouterr().err == (said if how == "damaged" else "")


def test_the_first_task_that_places_windows_is_kept_for_the_chunks(tmp_path: Path, first_steps: list[int]) -> None:
    """Killed in its middle, it goes on in the next launch, or stopped for want of time; `plan` writes no file of it."""
    arms = [
        arm | {"results_dir": str(tmp_path)}
        for arm in cli.arms(
            *SHARED_BY_CHUNKS[:2], "seeds=[1]", "grid=window", "grid.window.decades=2", "checkpoint_every=1e-9"
        )
    ]
    study.plan(arms)
    assert (sum(first_steps), list(tmp_path.iterdir())) == (200, [])
    first_steps[:] = [-1]
    with pytest.raises(Killed):
        study.compute_missing(arms, "test", cores=1)
    assert first_steps.pop(0) == -1
    [path] = tmp_path.rglob("*.first_task")
    ended = study.compute_missing([arm | {"time_budget": 1e-9} for arm in arms], "test", cores=1)
    assert ended.stopped and "no time is left to place the windows" in ended.unfinished and sum(first_steps) == 150
    assert not study.compute_missing(arms, "test", cores=1).unfinished
    assert sum(first_steps) == 200 and path.exists()


def test_a_first_task_that_another_process_keeps_meanwhile_is_its_own(
    tmp_path: Path, first_steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that begin together the slower one, when it would keep its own, takes that of the other."""
    one, other = jobs(tmp_path, *SHARED_BY_CHUNKS, "checkpoint_every=1e-9")
    plain = lifecycle.advance

    def slow(*given: Any) -> None:
        monkeypatch.setattr(lifecycle, "advance", plain)
        fresh().rows(other)
        plain(*given)

    monkeypatch.setattr(lifecycle, "advance", slow)
    found = fresh().rows(one)
    assert sum(first_steps) == 200 + 50
    [path] = (tmp_path / ".spool").glob("*.first_task")
    assert content(path.read_bytes())["learned"] == 1
    [expected, _] = jobs(tmp_path / "other", *SHARED_BY_CHUNKS)
    assert found["accuracy.csv"] == fresh().rows(expected)["accuracy.csv"]


def test_a_first_task_that_another_process_trains_is_waited_for(tmp_path: Path, first_steps: list[int]) -> None:
    """Until it is there, or no time is left; one that is gone when its turn has come is trained anew."""
    [job, _] = jobs(tmp_path, *SHARED_BY_CHUNKS, "checkpoint_every=1e-9")
    experiment = fresh().experiment(job.arm, "cpu")
    fresh().first_task(job, experiment)
    [path] = (tmp_path / ".spool").glob("*.first_task")
    lock = Lock(path.with_suffix(".lock"))
    for there in (True, False):
        with lock:
            with pytest.raises(Stopped):
                fresh().first_task(job._replace(deadline=time.monotonic() + 0.1), experiment)
            waiting = threading.Thread(target=fresh().first_task, args=(job, experiment))
            waiting.start()
            waiting.join(0.1)
            assert waiting.is_alive()
            if not there:
                path.unlink()
        waiting.join()
        assert sum(first_steps) == (200 if there else 400) and path.exists()


def test_a_chunk_of_another_launch_is_waited_for_as_long_as_there_is_time(tmp_path: Path) -> None:
    [job] = jobs(tmp_path)
    with fresh().store(tmp_path).chunk_lock(chunk_id(job.chunk)):
        assert fresh().compute(job) == worker.BUSY
        assert fresh().compute(job._replace(deadline=time.monotonic() + 0.1), wait=True) == worker.STOPPED


def test_a_first_task_goes_when_nobody_has_used_it_for_a_day(tmp_path: Path) -> None:
    """Others of the folder may need it, whoever is complete; what a killed writer has left goes at once."""
    one, other = jobs(tmp_path, *SHARED_BY_CHUNKS, "checkpoint_every=1e-9")
    fresh().rows(one)
    [path] = (tmp_path / ".spool").glob("*.first_task")
    partial = path.with_name(f".{path.name}.machine.1.tmp")
    partial.touch()
    store = fresh().store(tmp_path)
    store.tidy()
    assert path.exists() and not partial.exists()
    day_ago = time.time() - 25 * 3600
    os.utime(path, (day_ago, day_ago))
    fresh().rows(other)
    store.tidy()
    assert path.exists()
    os.utime(path, (day_ago, day_ago))
    with Lock(path.with_suffix(".lock")):
        store.tidy()
        assert path.exists()
    store.tidy()
    assert {entry.suffix for entry in store.spool.iterdir()} == {".checkpoint"}  # which `rows` leaves


@pytest.mark.parametrize("change", ["git_sha", "dirty", "code", "data", "runs"])
def test_a_chunk_of_other_runs_code_or_data_begins_again(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = jobs(tmp_path, deadline=0.0)
    with pytest.raises(Stopped):
        fresh().rows(job)
    if change == "runs":  # of the same seeds and shapes, at another lambda
        path = checkpoint_file(tmp_path, chunk_id(job.chunk))
        [job] = jobs(tmp_path, "grid.lambdas=[20]", deadline=0.0)
        path.rename(checkpoint_file(tmp_path, chunk_id(job.chunk)))
    elif change == "code":
        monkeypatch.setattr(provenance, "code", lambda *_: "another")
    elif change != "data":
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
    with pytest.raises(Stopped):
        worker.Workshop(lambda done, task, loss: learned.append(task)).rows(job)
    assert "of other runs, or other code, torch, machine or data: its runs begin again" in capsys.readouterr().err
    assert content(checkpoint_file(tmp_path, chunk_id(job.chunk)).read_bytes())["learned"] == 1


def test_a_checkpoint_of_a_gpu_is_one_of_another_machine_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not a damaged one."""
    experiment = made_experiment()
    at = sliced(experiment, Method(), [Replica(1, 0.0, None)])
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    data = checkpoint.dump(at, experiment, HERE)
    monkeypatch.undo()
    assert checkpoint.load(data, experiment, [1], {**HERE, "hardware": "another"}) is None


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def content(data: bytes) -> dict[str, Any]:
    """Of a checkpoint."""
    return torch.load(io.BytesIO(data[checkpoint.SHA256 :]), weights_only=True)


def edited(data: bytes, **changed: Any) -> bytes:
    """With other values, by someone who has made the checksum anew."""
    file = io.BytesIO()
    torch.save(content(data) | changed, file)
    return checkpoint.sealed(file.getvalue())


@pytest.fixture(scope="module")
def stopped() -> tuple[engine.Experiment, bytes]:
    """A checkpoint after the first of five tasks, of replicas with seeds 1 and 2."""
    [job] = jobs(Path("nowhere"), "iterations=1", "seeds=[1,2]", "max_replicas=2")
    experiment = fresh().experiment(job.arms[0], "cpu")
    rows = [Replica(cell.seed, 10.0, fresh().estimator(job.arms[0].cfg)) for cell in job.chunk]
    at = next(engine.stages(experiment, ewc(), rows, {}))
    return experiment, checkpoint.dump(at, experiment, HERE)


def test_no_bit_can_be_other_than_it_was_written(stopped: tuple[engine.Experiment, bytes]) -> None:
    """At 200 random places, and at the end: a whole checkpoint loads, and none of these."""
    experiment, data = stopped
    assert checkpoint.load(data, experiment, [1, 2], HERE)
    rng = random.Random(0)
    for place in [rng.randrange(8 * len(data)) for _ in range(200)] + [0, 8 * len(data) - 1]:
        other = bytearray(data)
        other[place // 8] ^= 1 << place % 8
        with pytest.raises(checkpoint.Unusable):
            checkpoint.load(bytes(other), experiment, [1, 2], HERE)
    for other in (data[:-1], data + b"\0", data[:10], b""):
        with pytest.raises(checkpoint.Unusable, match="its content is not that of its checksum"):
            checkpoint.load(other, experiment, [1, 2], HERE)


def transposed(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.mT for name, value in tree.items()}


MISFITS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "seeds": lambda at: {"seeds": [2, 1]},
    "tasks": lambda at: {"learned": 0},
    "params": lambda at: {"params": transposed(at["params"])},
    "params of another type": lambda at: {"params": {name: p.half() for name, p in at["params"].items()}},
    "params of one replica": lambda at: {"params": {name: p[:1] for name, p in at["params"].items()}},
    "buffers": lambda at: {"buffers": {"mean": torch.zeros(2, 3)}},
    "moments": lambda at: {"moments": [{"exp_avg": torch.zeros(2, 3)}, *at["moments"][1:]]},
    "accuracies": lambda at: {"accuracy": at["accuracy"][1:]},
    "traces": lambda at: {"traces": [torch.zeros(3)]},
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_is_of_another_shape_or_place_is_named(what: str, stopped: tuple[engine.Experiment, bytes]) -> None:
    experiment, data = stopped
    with pytest.raises(checkpoint.Unusable, match=f"its {what.split(maxsplit=1)[0]}.* are not of this chunk"):
        checkpoint.load(edited(data, **MISFITS[what](content(data))), experiment, [1, 2], HERE)
    assert checkpoint.load(edited(data), experiment, [1, 2], HERE)


def damaged(data: bytes, executed: Path) -> dict[str, bytes]:
    """Something else in its place."""
    return {
        "short": data[: len(data) // 2],
        "empty": b"",
        "code": edited(data, state=Payload(executed)),
        "seeds": edited(data, seeds=[7]),
        "type": edited(data, state=("os", "system", ["true"])),
        "module": edited(data, state=("not.a.module", "State", [])),
        "before checksums": data[checkpoint.SHA256 :],
    }


@pytest.mark.parametrize("how", ["short", "empty", "code", "seeds", "type", "module", "before checksums"])
def test_what_is_no_checkpoint_of_the_chunk_is_named_and_set_aside_and_runs_nothing(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [job] = jobs(tmp_path, deadline=0.0)
    path = checkpoint_file(tmp_path, chunk_id(job.chunk))
    for learned in (1, 2):
        with pytest.raises(Stopped):
            fresh().rows(job)
        assert content(path.read_bytes())["learned"] == learned
    bad = damaged(path.read_bytes(), tmp_path / "executed")[how]
    path.write_bytes(bad)
    with pytest.raises(Stopped):
        fresh().rows(job)
    [line] = capsys.readouterr().err.splitlines()
    aside = path.with_suffix(".damaged")
    assert line.startswith(f"{path}: it") and line.endswith(f"; set aside as {aside.name}, its runs begin again")
    assert aside.read_bytes() == bad
    assert content(path.read_bytes())["learned"] == 1
    assert not (tmp_path / "executed").exists()


def test_a_state_that_no_file_could_hold_is_named() -> None:
    class Local(NamedTuple):
        x: int

    for state, name in ((Local(1), "Local"), ({"a": 1.0}, "float"), ([torch.zeros(1)], "list")):
        with pytest.raises(TypeError, match=name):
            checkpoint.plain(state)
