r"""What well-known code bases compute as EWC's Fisher, composed of our sums: `fisher=compat/<library>`.

    F_i = (1/D) sum_U w_U (d/d theta_i mean_{n in U} -log p(y_n|x_n))^2

U runs over examples or over mini-batches of b of the task's N examples, M = ceil(N/b); |B| is the size of a batch.

    library       y_n         U         w_U       D                  penalty              over tasks
    avalanche     true        batch     1         M                  lam F                separate, or online
    capymoa       true        batch     1         M, of n = 256      lam/2 F              online, gamma
    clarena       true        batch     |B|       N times epochs     lam/2 F              separate
    curvlinops    all         example   p(y|x)    N                  none                 none
    ewc_pytorch   predicted   example   1         n = 200            lam F                pooled examples
    facil         predicted   batch     |B|       b floor(N/b)       lam/2 F              F <- (F_old + F)/2
    gt_ripl       predicted   batch     |B|       M                  lam F                separate, or online
    lamda_pilot   true        batch     1         M; min(F, 1e-4)    none                 averages weights
    laplace_torch all         example   p(y|x)    1                  1/2 F                added up
    libcontinual  true        batch     1         M; min(F, 1e-4)    lam/2 F              mean over classes
    mammoth       true        example   p(y|x)    b M                lam F                online, gamma
    nngeometry    all         example   p(y|x)    N                  none                 none
    pycil         true        batch     1         M; min(F, 1e-4)    lam/2 F              mean over classes
    reference     all         example   p(y|x)    N - 1              lam/2 F              online, gamma

`cl_repro.study.translate` turns the lambda of one into that of another. The sources, as read in November 2026:

    avalanche     ContinualAI/avalanche, avalanche/training/plugins/ewc.py, EWCPlugin.compute_importances (0.6.0)
    capymoa       adaptive-machine-learning/CapyMOA, src/capymoa/ocl/strategy/_ewc.py, fd_compute (0.15.1)
    clarena       pengxiang-wang/continual-learning-arena, clarena/cl_algorithms/ewc.py (train_end)
    curvlinops    f-dangel/curvlinops, curvlinops/ggn.py, GGNLinearOperator (3.0.1), with a mean loss
    ewc_pytorch   moskomule/ewc.pytorch, utils.py, EWC._diag_fisher; n from demo.ipynb
    facil         mmasana/FACIL, src/approach/ewc.py, Appr.compute_fisher_matrix_diag (max_pred, all samples)
    gt_ripl       GT-RIPL/Continual-Learning-Benchmark, agents/regularization.py, EWC.calculate_importance
    lamda_pilot   sun-hailong/LAMDA-PILOT, models/cofima.py, getFisherDiagonal
    laplace_torch aleximmer/Laplace, laplace/curvature/curvature.py, GGNInterface.diag (0.3)
    libcontinual  RL-VIG/LibContinual, core/model/ewc.py, EWC.getFisher
    mammoth       aimagelab/mammoth, models/ewc_on.py, EwcOn.end_task
    nngeometry    tfjgeorge/nngeometry, nngeometry/metrics.py, FIM with PMatDiag (0.4)
    pycil         G-U-N/PyCIL, models/ewc.py, EWC.getFisherDiagonal
    reference     GMvandeVen/continual-learning, models/cl/continual_learner.py, estimate_fisher

What no estimator can express, and what is done instead:

- DEVIATES from facil, lamda_pilot, libcontinual, mammoth and pycil, which leave the network in training mode: batch
  statistics (mammoth: of one example), running statistics that move, dropout. Here it is evaluated, as everywhere. The
  same for networks without either.
- DEVIATES from clarena, facil, lamda_pilot, libcontinual, mammoth and pycil, which augment the examples of the pass;
  here nothing is augmented.
- DEVIATES from facil, lamda_pilot, libcontinual, mammoth and pycil, which take the softmax over all classes so far
  (mammoth: all there are). Here over those of the scenario: the same under scenario=class, the task's own under
  scenario=task.
- DEVIATES from clarena, which counts N at every step of the task's training, so that its F is smaller by the epochs.
  Here D = N: the constant belongs to lambda.
- DEVIATES from clarena and facil, which protect no head. Without effect under scenario=task, where nothing else moves
  an old head.
- DEVIATES from capymoa, whose examples are the last n of the stream; here they are any n of the task. Where it masks
  logits it sets those of other tasks to 0, which leaves them in the softmax; here they are not in it.
- DEVIATES from avalanche, which takes the examples in the order of the file; here they are in random order, in other
  batches.
- Half, decay and mixing are the method's: method=ewc has lam/2, and method.gamma=0.5 mixes as facil does, at its lam.
  The decay of capymoa and mammoth is in F alone, ours is in the penalty too: with gamma < 1 their lam is also divided
  by gamma here. clarena, and by default avalanche and gt_ripl, keep a penalty a task: method=ewc_offline. The mean over
  classes of libcontinual and pycil, the weights that lamda_pilot averages, and ewc_pytorch's anchor, which moves every
  epoch, are no method here. curvlinops and nngeometry have no penalty; laplace_torch's belongs to a sum of losses.
- gt_ripl's agents for MNIST set n_fisher_sample=60000, which makes batches of one: fisher=predicted.
"""

from collections.abc import Callable

from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.common.rules import one_of, require
from cl_repro.importance import columns, fisher
from cl_repro.importance.batched import batched
from cl_repro.types import Estimator, Net, Tree

EXAMPLES = {"all": fisher.exact, "true": fisher.empirical, "predicted": fisher.predicted}
SQUARES = ("example", "example_times_p", "batch", "batch_times_size")
DIVISORS = ("examples", "batches", "padded", "full_batches", "last_index", "one")
Counts = tuple[Callable[[int], int], Callable[[int], float]]  # of N: examples used, and the divisor D


def compat(
    labels: str,
    square: str,
    divisor: str,
    n: int | None = None,
    batch_size: int | None = None,
    clip: float | None = None,
) -> Estimator:
    """An importance as a code base computes it.

    Args:
        labels: y_n, `all` (weighted by p(y|x)), `true` (the data's) or `predicted` (the most probable).
        square: U and w_U: `example` (1), `example_times_p` (p(y_n|x_n)), `batch` (1) or `batch_times_size` (|B|).
        divisor: D. `examples`: N or n; `batches`: M; `padded`: b M, as if the last batch were full; `full_batches`:
            b floor(N/b), and a last, smaller batch is left out; `last_index`: that of the loop over U (see `fisher`);
            `one`: F is a sum.
        n: examples used, in place of N; null: all.
        batch_size: b, where it matters.
        clip: the largest value F may have; null: any.

    Returns:
        The estimator.

    Raises:
        UserError: if an argument is outside these rules.
    """
    require("fisher.labels", labels, one_of(EXAMPLES))
    require("fisher.square", square, one_of(SQUARES))
    require("fisher.divisor", divisor, one_of(DIVISORS))
    of_batches = square.startswith("batch")
    if labels == "all" and square != "example":
        raise UserError(
            f"fisher.square={square}: must be example with fisher.labels=all, which weighs by p(y|x) itself"
        )
    if (of_batches or divisor in ("batches", "padded", "full_batches")) and (batch_size is None or batch_size < 1):
        raise UserError(f"fisher.batch_size={batch_size}: must be at least 1")
    if n is not None and of_batches and divisor == "last_index":
        raise UserError(f"fisher.n={n}: must be null with fisher.square={square} and fisher.divisor={divisor}")
    fisher.check_n(n)
    if clip is not None and not clip > 0:
        raise UserError(f"fisher.clip={clip}: must be above 0, or null for none")

    made = sum_of_batches(labels, square, batch_size or 1) if of_batches else sum_of_examples(labels, square)
    rows, per = counts(divisor, of_batches, n, batch_size or 1)
    made = made._replace(rows=rows, divisor=per)
    return made if clip is None else made._replace(finish=lambda mean: mean.clamp(max=clip))


def sum_of_examples(labels: str, square: str) -> Estimator:
    """Squares of examples' gradients, each times p(y_n|x_n) if asked for."""
    if square == "example":
        return EXAMPLES[labels]()

    def times_root_p(z: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        label = (z.argmax(1) if labels == "predicted" else y)[:, None]
        root = (z.log_softmax(1).gather(1, label) / 2).exp()  # [N, 1]; squared, it is p(y_n|x_n)
        return root[:, :, None] * columns.towards(z, label[:, 0])

    return fisher.of_columns(times_root_p, None, "exact")


def sum_of_batches(labels: str, square: str, batch_size: int) -> Estimator:
    """Squares of the gradients of mini-batches' mean losses, each times |B| if asked for."""
    ours = batched(batch_size)

    def total(net: Net, params: Tree, buffers: Tree, x: Tensor, y: Tensor, noise: Tensor, active: Tensor) -> Tree:
        if labels == "predicted":
            y = net.apply(params, buffers, x)[0][:, active].argmax(1)
        squares = ours.sum(net, params, buffers, x, y, noise, active)
        return {name: len(x) * g for name, g in squares.items()} if square == "batch_times_size" else squares

    return ours._replace(sum=total)


def counts(divisor: str, of_batches: bool, n: int | None, b: int) -> Counts:
    """How many of N examples are used, and by what the sum is divided."""
    if not of_batches and divisor == "last_index":
        return fisher.counts(n, "reference")
    per: dict[str, Callable[[int], float]] = {
        "examples": float,
        "batches": lambda used: float(-(-used // b)),
        "padded": lambda used: float(-(-used // b) * b),
        "full_batches": lambda used: float(used // b * b),
        "last_index": lambda used: fisher.one_less(-(-used // b)),
        "one": lambda used: 1.0,
    }
    used = lambda total: n or total  # noqa: E731
    rows = (lambda total: used(total) // b * b) if divisor == "full_batches" else used
    return rows, lambda total: per[divisor](used(total))
