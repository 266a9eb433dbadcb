r"""The two-phase search, over whatever trains a network (De Lange et al. 2021, section 4; its code: Mattdl/CLsurvey).

For each task, from the weights theta that the task before left:

    1. plasticity: fine-tune from theta with each learning rate of a grid; A* = max accuracy, at learning rate eta*
    2. stability:  train with the method from theta at eta* with lambda c; while A < (1 - margin) A*:  c <- factor c,
                   and again from theta, at most `attempts` times

Accuracies are on the task's own validation rows. The lambda that phase 2 ends with is where the next task begins. The
last attempt is kept, enough or not; one that is not enough lowers lambda for the next task all the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

W = TypeVar("W")  # what is trained: nothing here looks into it


class Trial(NamedTuple, Generic[W]):
    """What training on one task gives."""

    end: W
    accuracy: float  # on validation rows, a fraction
    epochs: int  # that it took


class Patience(NamedTuple):
    """When training slows down, and when it ends."""

    epochs: int = 70  # at most
    slow_after: int = 5  # epochs without a new best: the learning rate is lowered, once
    slower: float = 0.1  # by this factor
    stop_after: int = 10  # epochs without a new best: the end


class Rules(NamedTuple):
    """How the two phases search."""

    rates_first: Sequence[float] = (1e-1, 5e-2, 1e-2, 5e-3, 1e-3, 5e-4, 1e-4)  # learning rates of the first task
    rates: Sequence[float] = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)  # of later ones
    margin: float = 0.2  # of A* that may be lost for stability
    factor: float = 0.5
    attempts: int = 10


class Attempt(NamedTuple):
    """One training of the search."""

    phase: int  # 1 or 2
    attempt: int  # from 1 on, in its phase
    lr: float
    strength: float | None  # lambda; None: fine-tuning
    epochs: int
    accuracy: float
    kept: bool  # its learning rate (phase 1), its weights (phase 2)


class Found(NamedTuple, Generic[W]):
    """What the search of one task ends with."""

    end: W
    strength: float  # for the next task
    attempts: list[Attempt]


def search(
    start: W,
    strength: float,
    rates: Sequence[float],
    finetune: Callable[[W, float], Trial[W]],
    train: Callable[[W, float, float], Trial[W]],
    rules: Rules,
) -> Found[W]:
    """Both phases of one task.

    Args:
        start: what every training starts from; none may change it.
        strength: lambda of the penalty, at first.
        rates: learning rates to try, at least one.
        finetune: (start, lr) -> trial, without a penalty.
        train: (start, lr, strength) -> trial, with the method.
        rules: margin, factor, attempts.

    Returns:
        The network that is kept, and how it was found. Of equal learning rates the first is best.
    """
    tuned = [finetune(start, lr) for lr in rates]
    best = max(range(len(tuned)), key=lambda i: tuned[i].accuracy)
    lr, enough = rates[best], threshold(tuned[best].accuracy, rules.margin)
    rows = [Attempt(1, i + 1, rates[i], None, t.epochs, t.accuracy, i == best) for i, t in enumerate(tuned)]
    for attempt in range(1, rules.attempts + 1):
        trial = train(start, lr, strength)
        passed = trial.accuracy >= enough
        last = passed or attempt == rules.attempts
        rows.append(Attempt(2, attempt, lr, strength, trial.epochs, trial.accuracy, last))
        if not passed:
            strength *= rules.factor
        if last:
            break
    return Found(trial.end, strength, rows)


def threshold(best: float, margin: float) -> float:
    """(1 - margin) A*, less some roundings: what equals it is enough, whatever the floats say."""
    return (1 - margin) * best * (1 - 1e-12)


def until_stalled(
    start: W, lr: float, epoch: Callable[[float], float], snapshot: Callable[[], W], patience: Patience
) -> Trial[W]:
    """Train epoch by epoch, and go back to the best.

    DEVIATES from the reference code, which lowers the learning rate again when, after a new best, training stalls
    again, and waits one epoch longer before it stops, but for SI; here the rate is lowered once.

    Args:
        start: what is kept if no epoch gets anything right.
        lr: learning rate of the first epoch.
        epoch: learning rate -> accuracy on validation rows after one more epoch; NaN: the network has diverged.
        snapshot: what has been trained, as it is now.
        patience: when to slow down and to stop.

    Returns:
        The snapshot of the best epoch, the first of equals.
    """
    best, stalled, slowed = Trial(start, 0.0, 0), 0, False
    for n in range(1, patience.epochs + 1):
        accuracy = epoch(lr)
        best = best._replace(epochs=n)
        if math.isnan(accuracy):
            break
        if accuracy > best.accuracy:
            best, stalled = Trial(snapshot(), accuracy, n), 0
            continue
        stalled += 1
        if stalled >= patience.stop_after:
            break
        if stalled == patience.slow_after and not slowed:
            lr, slowed = lr * patience.slower, True
    return best
