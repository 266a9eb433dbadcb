"""The core types. No logic lives here.

Axis names, used everywhere: K replicas, S seeds, N examples, B mini-batch, C logits, T tasks.
Algorithms (networks, methods, estimators) are written for ONE replica; only the engine knows K.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Generator, Tensor

from cl_repro.common.tree import Tree as Tree  # noqa: PLC0414 - methods import all their types from here
from cl_repro.memory import Memory


class Task(NamedTuple):
    """One task of one seed: which rows of the resident data belong to it, and which classes."""

    rows: Tensor  # [N] int64, rows of Benchmark.x
    rows_test: Tensor  # [M] int64, rows of Benchmark.x_test
    classes: tuple[int, ...]  # class ids after the seed's permutation
    rows_val: Tensor | None = None  # [V] int64, rows of Benchmark.x held out for choosing lambda; not in `rows`
    pixels: Tensor | None = None  # [P] int64: input i is pixel pixels[i] of the flattened image; None: as they are
    first_class: int = 0  # added to the labels of its rows: where tasks share their rows, the classes are their own


class Curriculum(NamedTuple):
    """What one seed means on a benchmark: class ids of every row, and the sequence of tasks."""

    y: Tensor  # [rows of x] int64, class ids after the seed's permutation
    y_test: Tensor  # [rows of x_test] int64
    tasks: tuple[Task, ...]


class Benchmark(NamedTuple):
    """A data set on the device, and how a seed cuts it into tasks."""

    x: Tensor  # [rows, *shape] uint8
    x_test: Tensor  # [rows, *shape] uint8
    to_input: Callable[[Tensor], Tensor]  # uint8 [..., *shape] -> float32, what the network sees
    curriculum: Callable[[int], Curriculum]  # of a seed
    n_tasks: int
    n_classes: int  # over all tasks
    checksum: str  # of the arrays, for the provenance
    splits: tuple[str, ...] = ("test",)  # what accuracy is measured on: test, and val if every task has rows_val


class Scenario(NamedTuple):
    """Which logits exist, which are active, and what a label means (van de Ven et al. 2022)."""

    n_outputs: Callable[[Benchmark, Sequence[Task]], int]
    label: Callable[[Tensor, Task], Tensor]  # class ids -> logit indices
    active: Callable[[Sequence[Task], int, int], tuple[int, ...]]  # (tasks, trained up to, task asked about)


class Tap(Protocol):
    """What a layer does with its input and output besides computing; training uses the identity."""

    def __call__(self, name: str, layer: "Layer", a: Tensor, z: Tensor) -> Tensor:
        """Layer `name` maps input `a` [N, ...] to `z` [N, ...]; returns the output to go on with."""


class Layer(NamedTuple):
    """A kind of layer, as the importance passes see it."""

    sums: Callable[[Callable[[Tensor], Tensor], Tensor, Sequence[Tensor]], Tree]
    """(f, a, [D_1, ..., D_J]) -> {parameter suffix: sum_n sum_j f(d s_j / d theta)}, f the square or absolute value;
    D_j is the derivative of output column j by the layer's output, [N, ...]."""
    sees: Callable[[Tensor], Tensor] | None = None
    """a -> [M, in], the rows that the weight, as [out, in], is multiplied with; None: it is no such layer."""


class Net(NamedTuple):
    """A network as pure functions of its parameters; its last layer is called head."""

    init: Callable[[Generator], tuple[Tree, Tree]]  # -> parameters, buffers
    apply: Callable[..., tuple[Tensor, Tree]]
    """(params, buffers, x, *, train=False, tap=no_tap) -> logits [N, C], buffers; if `noise`, also noise=[N, noise]."""
    noise: int = 0  # numbers, uniform in [0, 1), that training needs for each example (dropout)
    unprotected: frozenset[str] = frozenset()  # parameters that no importance, penalty or re-initialisation touches
    columns: int = 0  # if the logits of each task are a column's of its own, which others' training must leave alone: T


class Choice(NamedTuple):
    """How an estimator chooses among the examples of a task when it has looked at all of them."""

    score: Callable[..., Tensor]  # arguments of `Estimator.sum` but weight -> [B] float64: what is known of each
    pick: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """(scores [N], u [] float64 uniform in [0, 1)) -> positions [rows(N)] int64 of the examples that are used, and
    their weights [rows(N)] float64; those of weight 0 do not count."""


class Estimator(NamedTuple):
    """How importances are estimated from the examples of a task, when it has been learned."""

    sum: Callable[..., Tree]
    """(net, params, buffers, x, y, noise, active) -> {name: [*shape]}, the SUM over these examples (or units).
    x [B, *shape] float; y [B] int64, positions in `active`; noise [B] float64 uniform in [0, 1);
    active [A] int64, the logits that enter the softmax. With a `choice` also weight [B] float64, what each counts;
    without it, once."""
    rows: Callable[[int], int]  # of the N examples of a task, how many are used
    divisor: Callable[[int], float]  # what the sum is divided by, for a task of N examples
    batch_size: int | None = None  # examples per call of `sum` where that changes the result; None: any
    vectorises: bool = True  # `sum` may run under torch.vmap over replicas
    finish: Callable[[Tensor], Tensor] = lambda mean: mean  # elementwise, of what the division gives
    choice: Choice | None = None  # which examples are used; None: the first `rows(N)` in random order, all alike


class Examples(NamedTuple):
    """Examples of a training step, and what the network says of them."""

    z: Tensor  # [B, C] logits, in training
    label: Tensor  # [B] int64, logit indices
    active: Tensor  # [B, C] bool, the logits that enter each example's softmax
    target: Tensor | None = None  # [B, C] logits: of the teacher, or those that were stored with a recalled example
    hidden: Tensor | None = None  # [B, units] what the head reads, if the method asks for it


class Step(NamedTuple):
    """What the loss of a training step may depend on."""

    batch: Examples  # of the task
    recalled: Examples | None  # drawn from the memory, if there is one
    old: Tensor  # [G, C] bool, the different sets of logits that the tasks before were told apart by


class Needs(NamedTuple):
    """What a method needs of the engine beside what its hooks are given; `engine.needs` checks it."""

    from_start: bool = False  # what acts on a step does in the first task, too, which replicas then do not share
    gradients: tuple[str, ...] = ()  # that `observe` reads: "batch" (the step's own), "independent" (of another batch)
    all_tasks: bool = False  # mini-batches are drawn from the examples of all tasks so far
    memory: Memory | None = None  # what is replayed from task 2 on, as many at a time as a mini-batch has
    mixes: bool = False  # its examples are drawn among those of a task, N // M times each, and not beside them
    keeps_logits: bool = False  # recalled examples have a target: their logits when they were stored, in training
    teacher: str | None = None  # the network before the task gives targets, once a "task" or at every "step"
    hidden: bool = False  # the loss, or a prediction, depends on what the head reads
    inspects: int = 0  # examples of a task that `inspect` looks at
    rebuild_every: int = 0  # steps of a task but the first, after which the state is made anew of all earlier tasks
    own_rates: bool = False  # what `descend` returns is the step: the optimiser has to subtract it as it is
    warm_up: int = 0  # steps, before those of a task but the first, in which only the outputs of its new classes learn


class Method(NamedTuple):
    """A continual-learning method, for one replica; state is a tensor, or a NamedTuple of tensors and Trees.

    A hook that is left out does nothing. From task 2 on a step of training is, in this order: the gradient of `loss`,
    made as `project_input` and `descend` say; `penalty_grad` is added; `project`; the optimiser. `observe` looks at
    every step of every task. The state is made when the first task has ended, or before it if something is to be
    observed, stored or done in it; its shapes are fixed. Parameters, gradients and importances are those of `protected`
    parameters.
    """

    init: Callable[[Tree, Tensor], Any] | None = None  # (params, lam) -> state
    penalty_grad: Callable[[Any, Tree], Tree] | None = None
    """(state, params) -> new tensors, which the gradient is added to"""
    end_task: Callable[[Any, Tree, Tree], Any] | None = None
    """(state, params, importance or {}) -> state, after a task but the last"""
    start_task: Callable[[Any, Tree], Any] | None = None  # (state, params) -> state, before the first step of a task
    observe: Callable[[Any, dict[str, Tree], Tree], Any] | None = None
    """(state, gradients before a step by their names in `needs.gradients`, change of the parameters) -> state. These
    gradients are of the mean cross-entropy of a mini-batch alone, of the network as it is evaluated: no penalty, no
    dropout."""
    project: Callable[[Any, Tree], Tree] | None = None  # (state, gradient) -> the gradient that is followed
    project_input: Callable[[Any, str, Tensor], tuple[Tensor, Tensor] | None] | None = None
    """(state, layer, a [B, in]) -> [B, in] and [B] that the gradients of a linear layer's weight and bias are made of
    instead of its inputs a and of ones; None: of those. What `project` is given is made so. With this hook, a matrix
    that inputs are multiplied with must be of a layer of kind `models.layers.LINEAR`."""
    inspect: Callable[..., Any] | None = None
    """(state, net, params, buffers, x [N, *shape], label [N], active [C] bool) -> state, after a task but the last and
    after `end_task`, on `needs.inspects` examples of it; tensors may grow in their last dimension."""
    predict: Callable[..., Tensor] | None = None
    """(state, net, params, buffers, x [N, *shape], active [C] bool) -> logits [N, C] that are evaluated instead of the
    network's; `inspect` then looks at the last task, too."""
    loss: Callable[[Any, Step], Tensor] | None = None
    """(state, step) -> what training minimises; None: the mean cross-entropy of the batch."""
    descend: Callable[..., Any] | None = None
    """(objective, state, params, buffers, batch, recalled) -> (state, what the optimiser takes for the gradient, by the
    names in params, and what the objective returned last); None: the gradient of the objective.
    objective(params, buffers, state, batch, recalled) -> (loss, (buffers, logits)): `loss` above, of these examples.
    batch, recalled: tensors [B, ...] by what they are for, the latter empty without a memory."""
    needs: Needs = Needs()
