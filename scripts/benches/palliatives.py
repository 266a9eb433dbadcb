"""A training step of distillation and of replay, against one of finetuning: one replica, the network of Split MNIST."""

import torch

from benches.measure import Row, Setting
from benches.workloads import SEED, against_finetuning
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

EXAMPLES = 1100  # in the memory
METHODS: dict[str, tuple[Method, float | None, str]] = {
    "lwf, a teacher pass per step": (lwf(teacher="step"), 1.6, ""),
    "lwf, the teacher's logits once per task": (lwf(teacher="task"), 1.15, "; one forward pass per task not included"),
    "replay, equal batch": (replay(reservoir(EXAMPLES)), 2.0, ""),
    "der, equal batch": (der(reservoir(EXAMPLES)), 2.0, ""),
    "der++, equal batch": (der(reservoir(EXAMPLES), beta=0.5), None, ""),
}
"""Method, target and note of a row, by its name."""
NAME = "{} / finetune step, K = 1, MLP 784-400-400-10"


def rows(setting: Setting) -> list[Row]:
    """A row for each method; on CUDA, too, if there is one."""
    return [*on(setting, "cpu"), *on(setting, "cuda")]


def on(setting: Setting, device: str) -> list[Row]:
    """The rows of one device."""
    told = {name: (target, note) for name, (_, target, note) in METHODS.items()}
    return against_finetuning(setting, device, NAME, told, courses)


def courses(of: Experiment) -> dict[str, Course]:
    """The second task of every method, after the first has been learned."""
    methods = {"finetune": finetune()} | {name: method for name, (method, *_) in METHODS.items()}
    return {name: second_task(of, method) for name, method in methods.items()}


def second_task(of: Experiment, method: Method) -> Course:
    """The second task, after the first has been learned."""
    stack = start(of, [SEED])
    state = initial(of, stack, method, torch.ones(1, device=of.device))
    state = ended(of, stack, method, learn(of, stack, 0, method, state), {})
    return begin(of, stack, 1, method, state)
