"""A training step of distillation and of replay, against one of finetuning: one replica, the network of Split MNIST."""

from functools import partial

import torch

from benches.measure import AT_MOST, Row, Setting, cost, interleave, missing, timed
from benches.workloads import SEED, all_steps, mnist, mnist_experiment
from cl_repro.engine import Experiment
from cl_repro.engine.course import Course
from cl_repro.engine.lifecycle import begin, ended, initial, learn
from cl_repro.engine.stack import start
from cl_repro.memory import reservoir
from cl_repro.methods.baselines import finetune
from cl_repro.methods.der import der
from cl_repro.methods.lwf import lwf
from cl_repro.methods.replay import replay
from cl_repro.types import Method

ITERATIONS = 50  # a round
EXAMPLES = 1100  # in the memory
METHODS: dict[str, tuple[Method, float | None, str]] = {
    "lwf, a teacher pass per step": (lwf(teacher="step"), 1.6, ""),
    "lwf, the teacher's logits once per task": (lwf(teacher="task"), 1.15, "; one forward pass per task not included"),
    "replay, equal batch": (replay(reservoir(EXAMPLES)), 2.0, ""),
    "der, equal batch": (der(reservoir(EXAMPLES)), 2.0, ""),
    "der++, equal batch": (der(reservoir(EXAMPLES), beta=0.5), None, ""),
}
NAME = "{} / finetune step, K = 1, MLP 784-400-400-10"


def rows(setting: Setting) -> list[Row]:
    """A row for each method; on CUDA, too, if there is one."""
    return [*on(setting, "cpu"), *on_cuda(setting)]


def on(setting: Setting, device: str, prefix: str = "") -> list[Row]:
    """The rows of one device."""
    benchmark, data = mnist(setting.data_dir, device)
    of = mnist_experiment(benchmark, ITERATIONS)
    works = {"finetune": finetune()} | {name: method for name, (method, *_) in METHODS.items()}
    candidates = {
        name: timed(partial(all_steps, second_task(of, method)), ITERATIONS, device) for name, method in works.items()
    }
    seconds = interleave(candidates, setting.rounds)
    return [
        cost(f"{prefix}{NAME.format(name)}", seconds[name], seconds["finetune"], "s", target, note=f"{data}{note}")
        for name, (_, target, note) in METHODS.items()
    ]


def on_cuda(setting: Setting) -> list[Row]:
    """The same on CUDA; `not measured` without it."""
    if setting.device.startswith("cuda"):
        return on(setting, setting.device, "CUDA: ")
    absent = "torch sees no CUDA device here"
    return [
        missing(f"CUDA: {NAME.format(name)}", "s", "x", target, AT_MOST, absent)
        for name, (_, target, _) in METHODS.items()
        if target
    ]


def second_task(of: Experiment, method: Method) -> Course:
    """The second task, after the first has been learned."""
    stack = start(of, [SEED])
    state = initial(of, stack, method, torch.ones(1, device=of.device))
    state = ended(of, stack, method, learn(of, stack, 0, method, state), {})
    return begin(of, stack, 1, method, state)
