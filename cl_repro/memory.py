r"""Memories of examples: which are kept of a stream (insertion), and at whose expense (eviction).

    insert_all       every example is inserted; the victim is uniform: an item survives n insertions with (1 - 1/M)^n
    reservoir        the n-th example is inserted with M / n; the victim is uniform (Vitter 1985)
    ring             every example is inserted; the victim is the oldest item of the largest class, or of its own
    class_balanced   an example of a class that is not the largest is inserted; the victim is a random item of the
                     largest class (Prabhu et al. 2020, GDumb)
    end_of_task      after a task, the M / (classes so far) of each class are drawn, older classes are thinned, and what
                     a class has fewer is shared among the others; with `per: task` the M / (tasks so far) of each
                     task, whatever their classes (Hsu et al. 2018)

A class is one of a task: where tasks share their classes (permuted pixels), each has its own.

What is kept depends on the order of the examples alone, so a seed's memory is the same for every network that is
trained on that seed: it is computed beforehand, in numbers of rows of the resident data. An example is offered once,
when it is first trained on.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from cl_repro.common.errors import UserError


class Item(NamedTuple):
    """One example."""

    row: int  # of Benchmark.x
    class_id: int
    task: int

    @property
    def kind(self) -> tuple[int, int]:
        """What equally many are kept of: a class of a task."""
        return self.task, self.class_id


@dataclass
class Contents:
    """What a memory holds."""

    slots: list[Item] = field(default_factory=list)
    seen: int = 0  # examples offered
    when: list[int] = field(default_factory=list)  # `seen` at the insertion of each
    of_kind: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # kind -> its slots

    def put(self, slot: int, item: Item) -> None:
        """Write an item to a slot, or append it."""
        if slot == len(self.slots):
            self.slots.append(item)
            self.when.append(self.seen)
        else:
            self.of_kind[self.slots[slot].kind].remove(slot)
            self.slots[slot], self.when[slot] = item, self.seen
        self.of_kind.setdefault(item.kind, []).append(slot)

    def largest(self) -> tuple[int, int]:
        """The kind with most items; of several, the one that came first."""
        return max(self.of_kind, key=lambda kind: len(self.of_kind[kind]))

    def count(self, kind: tuple[int, int]) -> int:
        """Items of a kind."""
        return len(self.of_kind.get(kind, ()))


class Memory(NamedTuple):
    """Examples of earlier tasks that are kept; which ones depends on the seed alone, never on a network."""

    size: int  # M, examples
    offer: Callable[[Contents, Item, float], int | None] | None
    """(contents, item, uniform number) -> slot that a trained example goes to, or None; None: nothing is offered."""
    settle: Callable[[Contents, Sequence[Item], Sequence[float]], None] | None = None
    """(contents, items of the task, a uniform number for each), when a task has been learned; changes the contents."""


def insert_all(size: int) -> Memory:
    """Every example is inserted, in the place of a random one. The far past is forgotten exponentially."""

    def offer(contents: Contents, item: Item, u: float) -> int:
        return int(u * size)

    return filling(size, offer)


def reservoir(size: int) -> Memory:
    """A uniform sample of everything offered so far."""

    def offer(contents: Contents, item: Item, u: float) -> int | None:
        slot = int(u * contents.seen)
        return slot if slot < size else None

    return filling(size, offer)


def ring(size: int) -> Memory:
    """The latest examples of every class, equally many of each."""

    def offer(contents: Contents, item: Item, u: float) -> int:
        largest = contents.largest()
        victim = largest if contents.count(item.kind) < contents.count(largest) else item.kind
        return min(contents.of_kind[victim], key=contents.when.__getitem__)

    return filling(size, offer)


def class_balanced(size: int) -> Memory:
    """The first examples of every class, equally many of each."""

    def offer(contents: Contents, item: Item, u: float) -> int | None:
        slots = contents.of_kind[contents.largest()]
        return slots[int(u * len(slots))] if contents.count(item.kind) < len(slots) else None

    return filling(size, offer)


def end_of_task(size: int, per: str | None = None) -> Memory:
    """Random examples of every class, equally many of each, chosen when a task has been learned.

    Args:
        size: M.
        per: of what equally many are kept: class (as None) or task.

    Returns:
        The memory.

    Raises:
        UserError: a negative size, or an unknown `per`.
    """
    checked(size)
    if per not in (None, "class", "task"):
        raise UserError(f"method.memory.per={per}: must be class (as null) or task")

    def part(item: Item) -> Any:
        return item.task if per == "task" else item.kind

    def settle(contents: Contents, items: Sequence[Item], u: Sequence[float]) -> None:
        place = dict(zip(items, u, strict=True))
        of_part: dict[Any, list[Item]] = {part(item): [] for item in (*contents.slots, *items)}
        for item in (*contents.slots, *sorted(items, key=place.__getitem__)):
            of_part[part(item)].append(item)
        room = shares(size, [len(own) for own in of_part.values()])
        kept = [item for own, n in zip(of_part.values(), room, strict=True) for item in own[:n]]
        contents.slots, contents.when, contents.of_kind = [], [], {}
        for item in kept:
            contents.put(len(contents.slots), item)

    return Memory(size, None, settle if size else None)


def shares(size: int, available: Sequence[int]) -> list[int]:
    """How many of each class a memory keeps: equally many, or all where there are fewer; the first have one more.

    Args:
        size: M.
        available: examples of each class.

    Returns:
        One number per class; their sum is M, or that of `available` if it is less.
    """
    turns = (k for turn in range(max(available, default=0)) for k, n in enumerate(available) if turn < n)
    dealt = Counter(islice(turns, size))
    return [dealt[k] for k in range(len(available))]


def filling(size: int, full: Callable[[Contents, Item, float], int | None]) -> Memory:
    """A memory that appends until it is full, and then asks."""
    checked(size)

    def offer(contents: Contents, item: Item, u: float) -> int | None:
        return full(contents, item, u) if len(contents.slots) == size else len(contents.slots)

    return Memory(size, offer if size else None)


def checked(size: int) -> None:
    """Refuse a memory of fewer than no examples; one of none is as if there were none."""
    if size < 0:
        raise UserError(f"method.memory.size={size}: must be at least 0, in examples")
