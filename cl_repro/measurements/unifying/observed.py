"""Methods that watch another one learn: they observe every step, and nothing of what they say is acted on."""

from typing import Any, NamedTuple

from torch import Tensor

from cl_repro.engine.aids import BATCH, INDEPENDENT
from cl_repro.types import Method, Tree


class State(NamedTuple):
    """State of the one that acts, and of those that watch."""

    acting: Any
    watching: tuple[Any, ...]


def observed(acting: Method, *watching: Method) -> Method:
    """A method that trains as `acting` does, bit for bit, while others observe the same steps.

    Args:
        acting: whose penalty and choice of examples count; it has a state.
        watching: methods that observe; none may need the importance of an estimator, which is the acting one's.

    Returns:
        The method. It observes the gradients that any of them reads.
    """
    all_of_them = (acting, *watching)

    def forward(hook: str, state: State, *arguments: Any) -> State:
        """A hook of every method, on its own state; a method without it keeps its state."""
        hooks = (getattr(method, hook) for method in all_of_them)
        states = (state.acting, *state.watching)
        acted, *watched = (f(own, *arguments) if f else own for f, own in zip(hooks, states, strict=True))
        return State(acted, tuple(watched))

    def init(params: Tree, lam: Tensor) -> State:
        first, *rest = (method.init(params, lam) if method.init else () for method in all_of_them)
        return State(first, tuple(rest))

    penalty_grad, asked = acting.penalty_grad, {name for method in all_of_them for name in method.needs.gradients}
    return Method(
        init,
        (lambda state, params: penalty_grad(state.acting, params)) if penalty_grad else None,
        end_task=lambda state, params, importance: forward("end_task", state, params, importance),
        start_task=lambda state, params: forward("start_task", state, params),
        observe=lambda state, gradients, change: forward("observe", state, gradients, change),
        needs=acting.needs._replace(gradients=tuple(name for name in (BATCH, INDEPENDENT) if name in asked)),
    )
