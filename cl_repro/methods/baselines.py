"""The two bounds: finetune (lower, "None" in the blog) and joint (upper)."""

from cl_repro.types import Method, Needs


def finetune() -> Method:
    """Train on one task after the other, protect nothing."""
    return Method()


def joint() -> Method:
    """At step k, go on from the current weights on the union of tasks 1..k, each example with its own task's mask.

    As many iterations per step as the other methods; where these are epochs, as many passes, over the union.
    """
    return Method(needs=Needs(all_tasks=True))
