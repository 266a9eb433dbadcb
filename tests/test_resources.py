"""What the jobs of a sweep on SLURM ask for: a CPU for each process, memory as measured, and what is typed as typed."""

from typing import Any

import cli
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cl_repro import engine
from cl_repro.common import runtime
from cl_repro.common.errors import ElsewhereError, UserError
from cl_repro.engine import checkpoint
from cl_repro.study import plan, slurm
from cl_repro.study.config import CONF

SIX = ("grid.lambdas=[1,10,100]", "seeds=[1,2]", "iterations=2", "max_replicas=1")  # chunks


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has held 1000 bytes."""
    monkeypatch.setattr(runtime, "peak_memory", lambda device: {"cpu": 1000}[device])


@pytest.mark.parametrize(
    ("jobs", "typed", "expected"),
    [
        ([("workers=1",)], None, (1, 1)),  # it trains, too
        ([("workers=2",)], None, (2, 3)),  # one hands out the chunks
        ([()], None, (plan.CPUS, plan.CPUS + 1)),
        ([("workers=5",)], None, (5, 6)),
        ([("workers=50",)], None, (6, 7)),  # no more than chunks
        ([("copy=1",), ("copy=2",)], None, (3, 4)),  # three chunks for each
        ([("lam=1",), ("lam=2", "seeds=[3,4]")], None, (2, 3)),  # of two studies: as much as one needs
        ([("workers=1",), ("workers=3",)], None, (3, 4)),
        ([()], 2, (2, 3)),
        ([()], 16, (16, 7)),
        ([("lam=-1",), ("workers=2",)], None, (2, 3)),  # the first says itself that it does not begin
    ],
)
def test_a_job_needs_a_cpu_and_the_memory_of_each_of_its_processes(
    jobs: list[tuple[str, ...]], typed: int | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "rehearse", lambda *_: None)
    arms = [cli.arms(*(SIX[1:] if any("lam=" in of for of in job) else SIX), *job) for job in jobs]
    cpus, processes = expected
    assert plan.needs(arms, typed) == plan.Resources(cpus, int(plan.MARGIN * 1000 * processes))


def test_what_all_jobs_would_refuse_is_refused() -> None:
    with pytest.raises(UserError, match="lambda=-1"):
        plan.needs([cli.arms("lam=-1"), cli.arms("lam=-2")])


def test_another_machine_is_not_measured_on_this_one(tmp_path) -> None:
    if not runtime.cuda_devices():
        with pytest.raises(ElsewhereError, match="no CUDA device"):
            plan.needs([cli.arms(*SIX)], gpus=1)
    with pytest.raises(ElsewhereError, match="MNIST not found"):
        plan.needs([cli.arms("benchmark=split_mnist", f"data_dir={tmp_path}")])


def test_all_that_a_chunk_holds_is_held_when_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm's replicas, after every task, as a checkpoint, and the mini-batches of a whole task."""
    drawn, dumped = [], []
    batches, dump = engine.lifecycle.batches, checkpoint.dump

    def watched(experiment: engine.Experiment, *others: Any, **more: Any) -> Any:
        drawn.append(batches(experiment, *others, **more))
        return drawn[-1]

    def noted(at: engine.Progress, experiment: engine.Experiment, origin: checkpoint.Origin) -> bytes:
        dumped.append((len(at.stack.seeds), at.learned))
        return dump(at, experiment, origin)

    monkeypatch.setattr(engine.lifecycle, "batches", watched)
    monkeypatch.setattr(checkpoint, "dump", noted)
    plan.needs([cli.arms("arms=[{method: finetune},{method: ewc}]", *SIX[:2], "iterations=777")])
    assert {done for done in dumped} == {(k, task) for k in (2, 6) for task in range(1, 6)}
    assert {one.rows.shape[1] for one in drawn} == {20, 777}


def composed(*overrides: str) -> Any:
    """The configuration of a sweep, as its callback gets it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["hydra/launcher=slurm", *overrides], return_hydra_config=True)
    OmegaConf.set_readonly(cfg.hydra, False)
    return cfg


@pytest.mark.parametrize(
    ("typed", "asked", "expected"),
    [
        ([], (None, 0), {"cpus_per_task": 3, "mem_gb": 7}),
        (["hydra.launcher.mem_gb=5"], (None, 0), {"cpus_per_task": 3}),
        (["hydra.launcher.mem_per_cpu=2GB"], (None, 0), {"cpus_per_task": 3}),
        (["hydra.launcher.cpus_per_task=2"], (2, 0), {"mem_gb": 7}),
        (["hydra.launcher.gpus_per_node=2"], (None, 2), {"cpus_per_task": 3, "mem_gb": 7}),
        (["hydra.launcher.cpus_per_task=2", "hydra.launcher.mem_gb=5"], None, {}),
    ],
)
def test_what_is_typed_is_not_asked_for_otherwise(
    typed: list[str],
    asked: tuple[int | None, int] | None,
    expected: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = []

    def measured(jobs: object, *of: object) -> tuple[dict[str, int], str]:
        seen.append(of)
        return {"cpus_per_task": 3, "mem_gb": 7}, "as measured here"

    monkeypatch.setattr(slurm.SlurmExecutor, "affinity", lambda: 1)  # there is one
    monkeypatch.setattr(slurm, "measured", measured)
    monkeypatch.setattr(slurm, "jobs", lambda config: [])
    assert slurm.resources(composed(*typed)) == expected
    assert seen == ([] if asked is None else [asked])
    err = capsys.readouterr().err
    assert all(f"hydra.launcher.{key}={value}" in err for key, value in expected.items()) and len(
        err.splitlines()
    ) == 2 * bool(expected)


def test_the_jobs_are_those_that_hydra_makes() -> None:
    cfg = composed()
    cfg.hydra.overrides.task = ["lam=1,10", "seeds=[1,2]", "batch_size=choice(16,32)", "val_fraction=0.5"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = slurm.jobs(cfg)
    said = [(arms[0]["lam"], arms[0]["batch_size"], arms[0]["seeds"], arms[0]["val_fraction"]) for arms in found]
    assert said == [(lam, n, [1, 2], 0.5) for lam in (1.0, 10.0) for n in (16, 32)]


@pytest.mark.parametrize(
    ("minutes", "delay", "refused"), [(2, 59, False), (2, 60, True), (1, 1, True), (240, 60, False)]
)
def test_a_job_that_may_be_told_to_stop_as_it_begins_is_refused(minutes: int, delay: int, refused: bool) -> None:
    launcher = composed(
        f"hydra.launcher.timeout_min={minutes}", f"hydra.launcher.signal_delay_s={delay}"
    ).hydra.launcher
    if not refused:
        slurm.check_time(launcher)
        return
    with pytest.raises(UserError, match=rf"^hydra.launcher.timeout_min={minutes}: must be more than"):
        slurm.check_time(launcher)
