"""The rows of Hsu et al. (2018), table 2, as their protocol says them: plain loops in float64 beside the engine."""

from collections.abc import Sequence

import cli
import pytest
import torch
from made_experiments import digits, made_experiment, run, thinned
from made_trees import error
from torch import Tensor
from torch.nn import functional

from cl_repro.benchmarks import scenarios
from cl_repro.benchmarks.split import split
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine import Epochs, Experiment, Replica, lengths
from cl_repro.engine.batches import batches
from cl_repro.importance import fisher
from cl_repro.importance.sensitivity import mas_batched
from cl_repro.memory import Contents, Item, end_of_task
from cl_repro.methods.baselines import finetune, joint
from cl_repro.methods.ewc import ewc
from cl_repro.methods.ewc_offline import ewc_offline
from cl_repro.methods.l2 import l2
from cl_repro.methods.quadratic import quadratic
from cl_repro.methods.replay import rehearsal
from cl_repro.methods.synaptic_intelligence import si
from cl_repro.study import study
from cl_repro.study.config import check
from cl_repro.types import Tree

SEED, N, B, PASSES, MEMORY = 3, 22, 6, 2, 9  # 22 examples are three mini-batches of 6 and one of 4
SCENARIOS = {"task": scenarios.task(), "domain": scenarios.domain(), "class": scenarios.class_()}
METHODS = {
    "adam": (finetune(), None, 1),
    "l2": (l2("constant"), None, 1),
    "ewc": (ewc_offline(), fisher.predicted(), 2),  # a penalty with the half: its lambda is twice the coefficient
    "online_ewc": (ewc(), fisher.predicted(), 2),
    "si": (si(0.1, signed=True), None, 1),
    "mas": (quadratic(), mas_batched(B), 1),
    "rehearsal": (rehearsal(end_of_task(MEMORY, "task")), None, 1),
    "offline": (joint(), None, 1),
}


def setting(scenario: str, passes: Sequence[int] = (PASSES,) * 5) -> Experiment:
    """Padded, standardised digits, classes (0, 1) to (8, 9), in float64."""
    where = {"data_dir": ".", "device": "cpu", "dtype": torch.float64}
    made = split("digits", 5, 16.0, mean=[0.3], std=[0.4], pad=1, fixed_classes=True, **where)
    return made_experiment(thinned(made, N), SCENARIOS[scenario], iterations=Epochs(tuple(passes)), batch_size=B)


class Loop:
    """The protocol, one example and one task at a time."""

    def __init__(self, scenario: str, coefficient: float) -> None:
        """Images, labels and initial weights; no task yet."""
        raw = split("digits", 5, 16.0, data_dir=".", device="cpu", dtype=torch.float64)
        self.scenario, self.coefficient = scenario, coefficient
        self.y = raw.curriculum(0).y.tolist()
        self.rows = [[i for i, c in enumerate(self.y) if c // 2 == t][:N] for t in range(5)]
        self.images = (functional.pad(raw.x.double(), (1, 1, 1, 1)) / 16 - 0.3) / 0.4
        initial, _ = setting(scenario).net.init(rng.stream(SEED, "init"))
        self.params = {name: p.double().requires_grad_() for name, p in initial.items()}
        self.adam = torch.optim.Adam(list(self.params.values()), lr=1e-2)
        self.zero = {name: torch.zeros_like(p) for name, p in self.now().items()}
        self.slots: list[tuple[Tree, Tree]] = []  # importance and anchor, one for each task, or one
        self.omega, self.w, self.previous = dict(self.zero), dict(self.zero), self.now()
        self.memory: list[list[int]] = []  # rows, one list for each task

    def now(self) -> Tree:
        return {name: p.detach().clone() for name, p in self.params.items()}

    def logits(self, row: int, task: int, trained: int) -> Tensor:
        """Those that compete for an example of `task`: of its own head, of the one head, of all classes so far."""
        p = self.params
        a = functional.linear(self.images[row].flatten(), p["fc1.weight"], p["fc1.bias"]).relu()
        z = functional.linear(a, p["head.weight"], p["head.bias"])
        return {"task": z[2 * task : 2 * task + 2], "domain": z[:2], "class": z[: 2 * trained + 2]}[self.scenario]

    def loss_of(self, row: int, task: int, trained: int, label: int | None = None) -> Tensor:
        """Cross-entropy of one example, with its own label or another."""
        own = self.y[row] if self.scenario == "class" else self.y[row] % 2
        return -self.logits(row, task, trained).log_softmax(0)[own if label is None else label]

    def gradient(self, of: Tensor) -> Tree:
        found = torch.autograd.grad(of, list(self.params.values()), allow_unused=True)
        return {n: self.zero[n] if g is None else g for n, g in zip(self.params, found, strict=True)}

    def train(self, task: int, pool: list[tuple[int, int]]) -> None:
        """Epochs of shuffled examples (row, task), the last mini-batch of each as large as what is left."""
        shuffle = rng.stream(SEED, "order", task)
        for _ in range(PASSES):
            order = torch.randperm(len(pool), generator=shuffle).tolist()
            for first in range(0, len(pool), B):
                batch = [pool[i] for i in order[first : first + B]]
                own = self.gradient(torch.stack([self.loss_of(r, k, task) for r, k in batch]).mean())
                pulls = [(o[n] * (p - at[n]).square()).sum() for o, at in self.slots for n, p in self.params.items()]
                pull = self.gradient(self.coefficient * torch.stack(pulls).sum()) if pulls else self.zero
                before = self.now()
                for name, p in self.params.items():
                    p.grad = own[name] + pull[name]
                self.adam.step()
                self.w = {n: w - own[n] * (self.params[n].detach() - before[n]) for n, w in self.w.items()}

    def add(self, found: Tree) -> Tree:
        """To the importance that is summed over tasks."""
        self.omega = {name: omega + found[name] for name, omega in self.omega.items()}
        return self.omega

    def fisher(self, task: int) -> Tree:
        """Mean square of the gradients of examples, with the label that the network predicts."""
        best = [int(self.logits(r, task, task).argmax()) for r in self.rows[task]]
        each = [self.gradient(self.loss_of(r, task, task, b)) for r, b in zip(self.rows[task], best, strict=True)]
        return {name: torch.stack([g[name].square() for g in each]).mean(0) for name in self.zero}

    def mas(self, task: int) -> Tree:
        """Mean absolute gradient of a mini-batch's mean square of all competing logits."""
        order = torch.randperm(N, generator=rng.stream(SEED, "fisher_order", task)).tolist()
        parts = [[self.rows[task][i] for i in order[first : first + B]] for first in range(0, N, B)]
        each = [self.gradient(torch.stack([self.logits(r, task, task).square() for r in p]).mean()) for p in parts]
        return {name: torch.stack([g[name].abs() for g in each]).mean(0) for name in self.zero}

    def path(self) -> Tree:
        """S / (squared change + 0.1), with its sign."""
        end, before = self.now(), self.previous
        found = {name: w / ((end[name] - before[name]).square() + 0.1) for name, w in self.w.items()}
        self.previous, self.w = end, dict(self.zero)
        return found

    def store(self, task: int) -> None:
        """Equally many of each task, in random order, the first of which stay."""
        u = torch.rand(len(self.y), generator=rng.stream(SEED, "memory", task), dtype=torch.float64).tolist()
        self.memory.append(sorted(self.rows[task], key=lambda r: u[r]))
        each, rest = divmod(MEMORY, len(self.memory))
        self.memory = [own[: each + (k < rest)] for k, own in enumerate(self.memory)]


def plain(row: str, scenario: str, coefficient: float) -> Tree:
    """Final weights of one row of the table."""
    loop = Loop(scenario, coefficient)
    if row == "offline":
        loop.train(4, [(r, t) for t, own in enumerate(loop.rows) for r in own])
        return loop.now()
    for t, own in enumerate(loop.rows):
        old = [(r, k) for k, kept in enumerate(loop.memory) for r in kept]
        loop.train(t, [(r, t) for r in own] + old * (N // MEMORY))
        if row == "rehearsal":
            loop.store(t)
        elif row == "ewc":
            loop.slots.append((loop.fisher(t), loop.now()))
        elif row != "adam":
            found = {"online_ewc": loop.fisher, "mas": loop.mas, "si": lambda _: loop.path()}.get(row)
            one = {name: torch.ones_like(p) for name, p in loop.zero.items()}
            loop.slots = [(loop.add(found(t)) if found else one, loop.now())]
    return loop.now()


ROWS = [
    ("adam", "domain", 0.0),
    ("l2", "task", 0.3),
    ("l2", "class", 1.0),
    ("ewc", "class", 30.0),
    ("ewc", "domain", 30.0),
    ("online_ewc", "task", 30.0),
    ("si", "task", 1.0),
    ("si", "domain", 1.0),
    ("mas", "class", 2.0),
    ("mas", "task", 2.0),
    ("rehearsal", "task", 0.0),
    ("rehearsal", "domain", 0.0),
    ("rehearsal", "class", 0.0),
    ("offline", "task", 0.0),
    ("offline", "class", 0.0),
]


@pytest.mark.parametrize(("row", "scenario", "coefficient"), ROWS)
def test_a_row_is_the_loop_of_its_protocol(row, scenario, coefficient):
    method, estimator, half = METHODS[row]
    experiment = setting(scenario, (0, 0, 0, 0, PASSES) if row == "offline" else (PASSES,) * 5)
    found = run(experiment, method, [Replica(SEED, half * coefficient, estimator)])
    assert error({name: p[0] for name, p in found.params.items()}, plain(row, scenario, coefficient)) < 1e-9
    assert found.outcomes[0].steps == max(lengths(experiment, method, SEED))


def test_the_coefficients_of_those_rows_matter():
    """So that the rows above are no test of finetuning."""
    without = plain("adam", "domain", 0.0)
    assert all(error(without, plain(row, "domain", 1.0)) > 1e-3 for row in ("l2", "si", "mas", "ewc"))


# --- epochs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size", "epochs"), [(22, 6, 3), (18, 6, 2), (4, 6, 2), (1, 1, 1), (7, 3, 0)])
def test_whole_epochs_show_every_example_once_each(n, size, epochs):
    order = rng.whole_epochs(rng.stream(1, "order"), n, size, epochs)
    per_epoch = -(-n // size)
    assert order.shape == (epochs * per_epoch, size)
    of_epochs = [[i for i in epoch.flatten().tolist() if i >= 0] for epoch in order.split(per_epoch) if len(epoch)]
    assert all(sorted(epoch) == list(range(n)) for epoch in of_epochs)
    assert len(set(map(tuple, of_epochs))) == epochs or n == 1  # shuffled anew
    assert all((row >= 0).sum() == (size if (i + 1) % per_epoch else (n - 1) % size + 1) for i, row in enumerate(order))


def test_replicas_of_equally_long_tasks_are_the_singles_of_a_stack():
    experiment, rows = setting("task"), [Replica(1, 3.0, fisher.predicted()), Replica(2, 0.5, fisher.predicted())]
    together = run(experiment, ewc(), rows).params
    for i, row in enumerate(rows):
        alone = run(experiment, ewc(), [row]).params
        assert error({n: p[0] for n, p in alone.items()}, {n: p[i] for n, p in together.items()}) < 1e-9


def test_seeds_with_unequal_tasks_are_no_stack():
    experiment = made_experiment(digits(), iterations=Epochs((1,) * 5))
    with pytest.raises(ValueError, match=r"^task 0 of seeds \[1, 2\]: whole epochs of different lengths are no one"):
        batches(experiment, [1, 2], 0, [0])
    arms = cli.arms("method=finetune", "seeds=[1,2,3]", "iterations={epochs: 1}")
    assert [len(chunk) for chunk in study.plan(arms).chunks] == [1, 1, 1]
    arms = cli.arms("method=finetune", "seeds=[1,2,3]", "iterations={epochs: 1}", "+benchmark.fixed_classes=true")
    assert [len(chunk) for chunk in study.plan(arms).chunks] == [3]


@pytest.mark.parametrize(
    ("iterations", "message"),
    [
        ({"epochs": -1}, "iterations.epochs=-1: must be an integer from 0 to 10000000, or a list of one for each task"),
        (
            {"epochs": [1, 2]},
            "iterations.epochs=[1, 2]: must be one number, or one for each of the benchmark.n_tasks=5 tasks",
        ),
        ({"epochs": [0] * 5}, "iterations.epochs=[0, 0, 0, 0, 0]: must train at least one task"),
        ({"epoch": 1}, "iterations={'epoch': 1}: must be a number, a list of them, or {epochs: a number or a list}"),
    ],
)
def test_epochs_that_are_none_are_refused(iterations, message):
    (cfg,) = cli.arms()
    with pytest.raises(UserError) as caught:
        check(cfg | {"iterations": iterations})
    assert str(caught.value) == message


# --- images, and the memory -----------------------------------------------------------------------------------------


def test_images_are_padded_before_they_are_standardised():
    where = {"data_dir": ".", "device": "cpu", "dtype": torch.float64}
    made = split("digits", 5, 16.0, mean=[0.3], std=[0.4], pad=2, **where)
    raw = split("digits", 5, 16.0, **where)
    inside = made.to_input(made.x)[:, 2:-2, 2:-2]
    assert made.x.shape[1:] == (12, 12) and made.x_test.shape[1:] == (12, 12)
    assert torch.allclose(inside, (raw.x.double() / 16 - 0.3) / 0.4, atol=1e-15)
    border = made.to_input(made.x).clone()
    border[:, 2:-2, 2:-2] = -0.3 / 0.4
    assert torch.allclose(border, torch.full_like(border, -0.3 / 0.4), atol=1e-15)
    with pytest.raises(UserError, match=r"^benchmark.pad=-1: must be at least 0, in pixels, or null for none$"):
        split("digits", 5, 16.0, pad=-1, **where)


def test_fixed_classes_are_those_of_seed_0_for_every_seed():
    where = {"data_dir": ".", "device": "cpu"}
    made, raw = (split("digits", 5, 16.0, fixed_classes=fixed, **where) for fixed in (True, None))
    for seed in (1, 7):
        assert torch.equal(made.curriculum(seed).y, raw.curriculum(0).y)
        assert not torch.equal(raw.curriculum(seed).y, raw.curriculum(0).y)


def test_a_memory_of_tasks_keeps_equally_many_of_each_and_the_first_ones_when_it_shrinks():
    memory, contents, held = end_of_task(10, "task"), Contents(), []
    generator = torch.Generator().manual_seed(1)
    for task in range(4):
        items = [Item(100 * task + i, 2 * task + (i > 2), task) for i in range(20)]  # classes of 3 and 17
        u = torch.rand(20, generator=generator).tolist()
        memory.settle(contents, items, u)
        new = [item for _, item in sorted(zip(u, items, strict=True))]
        held = [own[: len(contents.slots)] for own in [*held, new]]
        sizes = [10 // (task + 1) + (k < 10 % (task + 1)) for k in range(task + 1)]
        assert contents.slots == [item for own, size in zip(held, sizes, strict=True) for item in own[:size]]
    with pytest.raises(UserError, match=r"^method.memory.per=epoch: must be class \(as null\) or task$"):
        end_of_task(10, "epoch")


def test_old_and_new_examples_are_about_as_many():
    """22 examples of a task, 9 stored: each is there twice, so 40 are cut into 7 mini-batches an epoch."""
    experiment, method = setting("domain"), METHODS["rehearsal"][0]
    assert lengths(experiment, method, SEED) == [2 * 4] + [2 * 7] * 4
