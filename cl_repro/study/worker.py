"""What one process does: build an arm's objects from its configuration, train a chunk, spool its rows."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from cl_repro import engine
from cl_repro.benchmarks.hold_out import hold_out
from cl_repro.common import runtime
from cl_repro.common.errors import OutOfMemoryError, UserError
from cl_repro.engine import checkpoint
from cl_repro.records import LAUNCH, Row, Store, checkpoint_file, write_atomically
from cl_repro.records.identity import digest
from cl_repro.records.schema import STUDY
from cl_repro.study import resume, weights
from cl_repro.study.config import per_task
from cl_repro.study.factories import build
from cl_repro.study.grid import Arm, Cell, chunk_id
from cl_repro.study.jobs import Job, Stopped
from cl_repro.study.rows import rows_of
from cl_repro.types import Benchmark, Estimator, Method

DATA = ("benchmark", "val_fraction", "data_dir", "dtype")  # keys that, with the device, decide a benchmark
BEFORE_METHOD = ("model", "optim", "val_fraction")  # keys that, with the experiment's, decide a first task
BUSY, DONE, FAILED, STOPPED = "busy", "done", "failed", "stopped"
WORST = (STOPPED, BUSY, FAILED, DONE)  # first, of two halves of a chunk
FULL = (torch.OutOfMemoryError, OutOfMemoryError)  # what a stack that a device has no memory for raises


class Workshop:
    """What a process keeps between chunks: resident data, and the last first task that was shared.

    This one computes the runs of a study; `program.Bench` the cells of a measurement beside it.
    """

    def __init__(self, report: engine.Report) -> None:
        """`report` is told about progress."""
        self.report = report
        self.made: dict[Any, Any] = {}  # benchmarks, estimators and stores, by what they were made of
        self.trunks: dict[str, engine.Trunk] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` has made for this key, in this process once."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def benchmark(self, cfg: dict[str, Any], device: str) -> Benchmark:
        """The benchmark of a configuration, read once per process."""

        def make() -> Benchmark:
            given = {"data_dir": Path(cfg["data_dir"]), "device": device, "dtype": getattr(torch, cfg["dtype"])}
            whole = build("benchmark", cfg["benchmark"], **given)
            return hold_out(whole, cfg["val_fraction"]) if cfg["val_fraction"] else whole

        return self.once(digest([cfg[key] for key in DATA] + [device], 8), make)

    def estimator(self, cfg: dict[str, Any]) -> Estimator | None:
        """The estimator of a configuration; equal configurations give the same object."""
        if cfg["fisher"] is None:
            return None
        return self.once(digest(cfg["fisher"], 8), lambda: build("fisher", cfg["fisher"]))

    def method(self, cfg: dict[str, Any]) -> Method:
        """The method of a configuration."""
        return build("method", cfg["method"])

    def experiment(self, arm: Arm, device: str) -> engine.Experiment:
        """What all replicas of an arm share."""
        cfg = arm.cfg
        runtime.deterministic(cfg["deterministic"], device)
        benchmark, scenario = self.benchmark(cfg, device), build("scenario", cfg["scenario"])
        n_outputs = scenario.n_outputs(benchmark, benchmark.curriculum(cfg["seeds"][0]).tasks)
        given = {"input_shape": tuple(benchmark.x.shape[1:]), "n_outputs": n_outputs}
        before_method = {k: v for k, v in cfg.items() if k in engine.Experiment._fields or k in BEFORE_METHOD}
        return engine.Experiment(
            key=digest([before_method, cfg["data_dir"], device], 8),
            benchmark=benchmark,
            scenario=scenario,
            net=build("model", cfg["model"], **given),
            optimiser=partial(make_optimiser, cfg["optim"]),
            reset_optimiser=cfg["optim"]["reset"],
            iterations=length(cfg["iterations"], benchmark.n_tasks),
            batch_size=cfg["batch_size"],
            rows_per_pass=rows_per_pass(cfg, device),
            share_first_task=cfg["share_first_task"],
            dtype=getattr(torch, cfg["dtype"]),
            device=device,
            tf32=cfg["tf32"],
            channels_last=cfg["channels_last"],
            cuda_graph=cfg["cuda_graph"],
            reinit=cfg["reinit"],
            pause=min(5.0, cfg["checkpoint_every"] / 4),
        )

    def replicas(self, arms: Sequence[Arm], chunk: Sequence[Cell]) -> list[engine.Replica]:
        """Those of a chunk's cells."""
        return [engine.Replica(cell.seed, cell.lam or 0.0, self.estimator(arms[cell.arm].cfg)) for cell in chunk]

    def compute(self, job: Job, wait: bool = False) -> str:
        """Train what is missing of a chunk and spool its rows, unless another process is at it or has done it.

        Args:
            job: the chunk.
            wait: for the other process, as long as there is time, instead of answering `busy`.

        Returns:
            `done`: the chunk's rows are spooled or recorded, by halves of it where the device has no memory for all.
            `busy`: another process computes it. `failed`: it raised, here or in another job of this launch; the
            traceback is recorded. `stopped`: no time is left; the next launch goes on where it stopped.
        """
        store, name = self.store(job.folder), chunk_id(job.chunk)
        patience = (-1.0 if job.deadline is None else job.left) if wait else 0.0
        try:
            with store.chunk_lock(name).acquire(timeout=patience):
                left = store.missing(cell.run_id for cell in job.chunk)
                if len(left) == len(job.chunk):
                    outcome = self.attempt(job, store, name)
                elif left:  # the others were part of another chunk: of other seeds, or another device's
                    outcome = self.compute(job._replace(chunk=[c for c in job.chunk if c.run_id in left]), wait)
                else:
                    outcome = DONE
                if outcome == DONE:
                    store.forget_failures()
                    store.forget(name)
                return outcome
        except Timeout:
            return STOPPED if wait else BUSY

    def store(self, folder: Path) -> Store:
        """That of a folder, opened once per process."""
        return self.once(folder, lambda: self.opened(folder))

    def opened(self, folder: Path) -> Store:
        """The store that the rows of a folder go to."""
        return Store(folder)

    @staticmethod
    def parts(job: Job) -> int:
        """Of a chunk, between which it can stop for want of time: its tasks."""
        return job.arm.cfg["benchmark"]["n_tasks"]

    def size(self, job: Job) -> int:
        """Replica iterations that a chunk reports; a shared first task is not counted."""
        cfg, method = job.arm.cfg, self.method(job.arm.cfg)
        shares = cfg["share_first_task"] and not engine.in_first_task(method)
        if isinstance(cfg["iterations"], dict):
            steps = engine.lengths(self.experiment(job.arm, job.device), method, job.chunk[0].seed)
        else:
            steps = per_task(cfg["iterations"], cfg["benchmark"]["n_tasks"])
        return len(job.chunk) * sum(steps[shares:])

    def attempt(self, job: Job, store: Store, name: str) -> str:
        """`compute` of a chunk of which all is missing, by the holder of its lock."""
        run_ids, launch = [cell.run_id for cell in job.chunk], os.environ.get(LAUNCH)
        # A launch tries a chunk once: copies of a study, whenever and wherever they start, count it as failed and
        # go on. A new command is a new launch, and tries again. Clocks of several machines play no part in this.
        if launch and store.failed().get(name, {}).get("launch") == launch:
            return FAILED
        try:
            with store.running(name, run_ids):
                store.put(name, self.rows(job))
                checkpoint_file(job.folder, name).unlink(missing_ok=True)
            return DONE
        except Stopped:
            return STOPPED
        except Exception as error:
            halve = isinstance(error, FULL) and len(job.chunk) > 1
            if isinstance(error, UserError) and not halve:
                raise  # the whole study's mistake, or its folder's: one line, not one per chunk
            if not halve:  # anything else is this chunk's: the rest go on
                store.note_failure(name, run_ids, traceback.format_exc(), launch)
                return FAILED
        return self.halves(job)  # here, where the error holds no memory any more

    def halves(self, job: Job) -> str:
        """`compute` of one half of a chunk, then of the other, if there is time; the worse of their outcomes."""
        middle = -(-len(job.chunk) // 2)
        sys.stderr.write(
            f"out of memory on {job.device}: going on with {middle} instead of {len(job.chunk)} replicas\n"
        )
        self.trunks.clear()
        torch.cuda.empty_cache()
        outcome = self.compute(job._replace(chunk=job.chunk[:middle]))
        if outcome == STOPPED:
            return outcome
        return min(outcome, self.compute(job._replace(chunk=job.chunk[middle:])), key=WORST.index)

    def rows(self, job: Job) -> dict[str, list[Row]]:
        """Train a chunk; its rows of the CSVs. Raises `Stopped` where the time is over."""
        experiment, method = self.experiment(job.arm, job.device), self.method(job.arm.cfg)
        outcomes = self.outcomes(job, experiment, method, self.replicas(job.arms, job.chunk))
        shared = engine.shares_first_task(experiment, method)
        rows: dict[str, list[Row]] = {name: [] for name in STUDY}
        for cell, outcome in zip(job.chunk, outcomes, strict=True):
            for name, own in rows_of(job, cell, experiment, outcome, shared).items():
                rows[name] += own
        return rows

    def outcomes(
        self, job: Job, experiment: engine.Experiment, method: Method, replicas: list[engine.Replica]
    ) -> list[engine.Outcome]:
        """Train a chunk through all tasks, and keep the weights that its configuration asks for."""
        for at in self.stages(job, experiment, method, replicas):
            if not at.middle:
                weights.save(job.folder, job.arms, job.chunk, experiment, at.stack, at.learned)
        return engine.outcomes(experiment, method, at)

    def stages(
        self, job: Job, experiment: engine.Experiment, method: Method, replicas: list[engine.Replica]
    ) -> Iterator[engine.Progress]:
        """`engine.stages`, from the chunk's checkpoint on if there is one; raises `Stopped` where the time is over."""
        chunk = chunk_id(job.chunk)
        path, origin = checkpoint_file(job.folder, chunk), {"chunk": chunk} | resume.origin(job, experiment)
        begun = resume.begun(path, experiment, [replica.seed for replica in replicas], origin)
        if not begun and engine.shares_first_task(experiment, method):
            self.first_task(job, experiment)
        stages = engine.stages(experiment, method, replicas, self.trunks, self.report, begun)

        def write(at: engine.Progress) -> None:
            write_atomically(path, checkpoint.dump(at, experiment, origin))

        yield from resume.kept(stages, experiment.benchmark.n_tasks, job, write)

    def first_task(self, job: Job, experiment: engine.Experiment) -> engine.Trunk:
        """The trained first task that chunks of these seeds share: `resume.first_task`, once in this process."""
        seeds = sorted({cell.seed for cell in job.chunk})
        name = engine.trunk_name(experiment, seeds)
        if name not in self.trunks:
            engine.keep_first_task(self.trunks, experiment, resume.first_task(job, experiment, seeds))
        return self.trunks[name]


def length(iterations: Any, n_tasks: int) -> Sequence[int] | engine.Epochs:
    """Iterations of each task, or its epochs."""
    if isinstance(iterations, dict):
        return engine.Epochs(tuple(per_task(iterations["epochs"], n_tasks)))
    return per_task(iterations, n_tasks)


def rows_per_pass(cfg: dict[str, Any], device: str) -> int:
    """Examples per forward pass outside training: as set, or what the model suggests for this kind of device."""
    given = cfg["rows_per_pass"]
    return cfg["model"]["rows_per_pass"][torch.device(device).type] if given == "auto" else given


def make_optimiser(node: dict[str, Any], params: list[torch.Tensor]) -> torch.optim.Optimizer:
    """The optimiser of a configuration for these tensors."""
    return build("optim", node, params=params)
