"""Importances of an MLP 784-2000-2000-10 after training and during it, against one Fisher pass and plain steps."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benches import workloads
from benches.measure import NO_CUDA, Row, Setting, cost, interleave, speedup, timed
from benches.workloads import SEED, experiment, mnist, one_pass
from cl_repro.benchmarks import scenarios
from cl_repro.common import runtime, tree
from cl_repro.engine import Experiment
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import begin, initial
from cl_repro.engine.stack import lower, start
from cl_repro.importance.fisher import exact
from cl_repro.importance.sensitivity import af, mas, mas_logits, masx
from cl_repro.measurements.unifying.observed import observed
from cl_repro.methods.sos import sos
from cl_repro.methods.synaptic_intelligence import si, sib, siu
from cl_repro.types import Estimator, Method, Net, Tree

HIDDEN, BATCH = (2000, 2000), 256
TASK = 4  # the last of five: in the class scenario all ten logits are active
EXAMPLES, LOOPED = 1000, 5  # of a pass; of the loop, per round
ITERATIONS = {"cpu": 4, "cuda": 50}  # of training, per round
ESTIMATORS: dict[str, Callable[[int], Estimator]] = {
    "exact": exact, "af": af, "mas": mas, "masx": masx, "mas_logits": mas_logits,
}  # fmt: skip
OBSERVERS: dict[str, Method] = {"si": si(0.1), "siu": siu(0.1), "sib": sib(0.1), "sos": sos()}

PASSES = "Fisher, AF, MAS, MASX, MAS of logits of 1000 examples / exact Fisher alone"
LOOP = "the same five / one example and one class at a time"
TRACKING = "training step that SI, SIU, SIB and SOS observe / plain step"


def rows(setting: Setting) -> list[Row]:
    """Three ratios on the CPU, and two of them on CUDA."""
    of, data = workload(setting.data_dir)
    loop = {"loop": timed(partial(one_at_a_time, *loop_data(of, LOOPED)), LOOPED)}
    seconds = interleave(passes(of, EXAMPLES) | loop, setting.rounds) | interleave(training(of), setting.rounds)
    note = f"MLP 784-2000-2000-10, {data}, ten classes"
    from_loop = f"per example, the loop from {LOOPED} a round; it takes Fisher and AF from the same gradients"
    return [
        *both("", seconds, f"{note}; per example, {EXAMPLES} at a time", f"{note}; batches of {BATCH}, no penalty"),
        speedup(LOOP, seconds["all"], seconds["loop"], 50.0, f"{note}; {from_loop}"),
        *on_cuda(setting),
    ]


def on_cuda(setting: Setting) -> list[Row]:
    """The rows of passes and training; `not measured` without CUDA."""
    seconds, note = NO_CUDA
    if setting.cuda:
        of, data = workload(setting.data_dir, setting.device)
        seconds = interleave(passes(of, EXAMPLES) | training(of), setting.rounds)
        note = f"MLP 784-2000-2000-10, {data}, ten classes; {runtime.hardware(setting.device)}; TF32 off"
    return both("CUDA: ", seconds, note, note)


def both(prefix: str, seconds: Mapping[str, float], of_passes: str, of_training: str) -> list[Row]:
    """The rows of passes and of training, with their notes."""
    return [
        cost(f"{prefix}{PASSES}", seconds["all"], seconds["exact"], 5.0, note=of_passes),
        cost(f"{prefix}{TRACKING}", seconds["observed"], seconds["plain"], 2.2, note=of_training),
    ]


def workload(data_dir: Path, device: str = "cpu") -> tuple[Experiment, str]:
    """The network of Permuted MNIST on images of MNIST, and where they are from."""
    benchmark, data = mnist(data_dir, device)
    iterations = ITERATIONS[torch.device(device).type]
    return experiment(benchmark, HIDDEN, BATCH, iterations, scenario=scenarios.class_()), data


def passes(of: Experiment, n: int) -> dict[str, Callable[[], float]]:
    """Candidates `all` and `exact`: seconds per example of importances of n examples, of all estimators and of one."""
    course = plain_training(of)
    each = {name: one_pass(course, make(n), n, TASK) for name, make in ESTIMATORS.items()}
    return {"all": lambda: sum(once() for once in each.values()), "exact": each["exact"]}


def loop_data(of: Experiment, n: int) -> tuple[Net, Tree, Tensor, Tensor]:
    """What `one_at_a_time` sees: network, weights, the first n examples of the task, active logits."""
    curriculum, stack = of.benchmark.curriculum(SEED), start(of, [SEED])
    active = of.scenario.active(curriculum.tasks, TASK, TASK)
    x = of.benchmark.to_input(of.benchmark.x[curriculum.tasks[TASK].rows[:n]])
    return of.net, lower(stack.params, 1), x, torch.tensor(active, device=x.device)


def one_at_a_time(net: Net, params: Tree, x: Tensor, active: Tensor) -> dict[str, Tree]:
    """The sums over examples of all `ESTIMATORS`, with one gradient of one scalar of one example at a time.

    Args:
        net: without buffers.
        params: of one replica.
        x: [N, *shape].
        active: [A] int64.

    Returns:
        Name of the estimator -> its sum.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    total = {name: tree.zeros_like(params) for name in ESTIMATORS}

    def gradient(scalar: Tensor) -> Tree:
        return dict(zip(leaves, torch.autograd.grad(scalar, list(leaves.values()), retain_graph=True), strict=True))

    for example in x.split(1):
        z = net.apply(leaves, {}, example)[0][0, active]
        q = z.softmax(0)
        for weight, log_q in zip(q.tolist(), z.log_softmax(0), strict=True):
            for name, g in gradient(-log_q).items():
                total["exact"][name].add_(weight * g.square())
                total["af"][name].add_(weight * g.abs())
        for key, scalar in (("mas", q.square().sum()), ("masx", q.max().square()), ("mas_logits", z.square().sum())):
            for name, g in gradient(scalar).items():
                total[key][name].add_(g.abs())
    return total


def training(of: Experiment) -> dict[str, Callable[[], float]]:
    """Candidates `observed` and `plain`: seconds per step of training that `OBSERVERS` observe, and of finetuning."""
    return {"observed": workloads.training(observed_training(of)), "plain": workloads.training(plain_training(of))}


def plain_training(of: Experiment) -> Course:
    """The task, from initial weights, without a method."""
    return begin(of, start(of, [SEED]), TASK, Method(), None)


def observed_training(of: Experiment) -> Course:
    """The same with all `OBSERVERS`, none of which protects."""
    method, stack = observed(*OBSERVERS.values())._replace(penalty_grad=None), start(of, [SEED])
    state = initial(of, stack, method, torch.zeros(1, device=of.device))
    return begin(of, stack, TASK, method, state)
