"""Which examples a memory keeps, and which of them a step is given: against plain lists, and the laws of the draws."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from made_experiments import digits, made_experiment, thinned
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from cl_repro import memory
from cl_repro.benchmarks import scenarios
from cl_repro.benchmarks.permuted import permuted
from cl_repro.common import rng
from cl_repro.common.errors import UserError
from cl_repro.engine.aids import aids
from cl_repro.engine.batches import batches, minibatch
from cl_repro.engine.recall import Kept, kept
from cl_repro.engine.stack import start
from cl_repro.memory import Contents, Memory
from cl_repro.types import Curriculum, Method, Needs, Task

FILLING: dict[str, Callable[[int], Memory]] = {
    "insert_all": memory.insert_all,
    "reservoir": memory.reservoir,
    "ring": memory.ring,
    "class_balanced": memory.class_balanced,
}
POLICIES = FILLING | {"end_of_task": memory.end_of_task}
PLAIN = ("insert_all", "reservoir", "ring", "end_of_task")  # those whose every choice `plain` makes, too

Pair = tuple[int, int]  # (task, row) of an example, or (task, class)


class Course(NamedTuple):
    """Tasks of two classes each, and the mini-batches that they are trained on."""

    curriculum: Curriculum
    batches: list[Tensor]  # of each task, [iterations, B] rows


def course(n_tasks: int = 3, per_class: int = 12, size: int = 8, epochs: int = 1, shared: bool = False) -> Course:
    """Made tasks with classes of their own, or (`shared`) with the same examples; no example is left out."""
    n = 2 * per_class
    y = torch.arange(2 if shared else 2 * n_tasks).repeat_interleave(per_class)
    firsts = [0 if shared else n * k for k in range(n_tasks)]
    rows = [torch.arange(first, first + n) for first in firsts]
    tasks = tuple(Task(of, of, tuple(y[of].unique().tolist())) for of in rows)
    orders = [rng.batches(torch.Generator().manual_seed(k), n, size, epochs * n // size) for k in range(n_tasks)]
    return Course(Curriculum(y, y, tasks), [of[order] for of, order in zip(rows, orders, strict=True)])


def goes_through(of: Memory, made: Course, seed: int, draws: bool = True) -> list[tuple[Kept, list[Pair]]]:
    """What the engine says of each task, and the contents after it."""
    contents, result = Contents(), []
    for task, rows in enumerate(made.batches):
        one = kept(of, contents, made.curriculum, seed, task, rows, draws)
        result.append((one, held(contents)))
    return result


def held(contents: Contents) -> list[Pair]:
    return [(item.task, item.row) for item in contents.slots]


def final(of: Memory, made: Course, seed: int) -> list[Pair]:
    return goes_through(of, made, seed, draws=False)[-1][1]


def chances(seed: int, task: int, n: int) -> list[float]:
    """The uniform number that an example brings along."""
    return torch.rand(n, generator=rng.stream(seed, "memory", task), dtype=torch.float64).tolist()


def counts(of: Sequence[Pair], made: Course) -> Counter[Pair]:
    """Examples of each class of each task."""
    return Counter((task, int(made.curriculum.y[row])) for task, row in of)


def plain(policy: str, size: int, made: Course, seed: int) -> list[list[list[Pair]]]:  # noqa: PLR0912 - one loop
    """What is held before each step of each task, and (the last of each task) after it."""
    y, n, now, kinds = made.curriculum.y.tolist(), 0, [], []
    ages: dict[Pair, int] = {}
    history = []
    for task, rows in enumerate(made.batches):
        u, offered, steps = chances(seed, task, len(y)), set(), []
        for batch in rows.tolist():
            steps.append(list(now))
            for row in batch:
                if row in offered:
                    continue
                offered.add(row)
                n += 1
                ages[task, row] = n
                if (task, y[row]) not in kinds:
                    kinds.append((task, y[row]))
                if policy == "end_of_task":
                    continue
                if len(now) < size:
                    now.append((task, row))
                elif policy == "insert_all":
                    now[math.floor(u[row] * size)] = (task, row)
                elif policy == "reservoir":
                    if math.floor(u[row] * n) < size:
                        now[math.floor(u[row] * n)] = (task, row)
                else:
                    by_kind = {kind: [p for p in now if (p[0], y[p[1]]) == kind] for kind in kinds}
                    most = max(len(of) for of in by_kind.values())
                    victim = (task, y[row])
                    if len(by_kind[victim]) < most:
                        victim = next(kind for kind in kinds if len(by_kind[kind]) == most)
                    now[now.index(min(by_kind[victim], key=ages.__getitem__))] = (task, row)
        if policy == "end_of_task":
            pools = {kind: [p for p in now if (p[0], y[p[1]]) == kind] for kind in kinds}
            for kind in sorted(k for k in kinds if k[0] == task):
                pools[kind] = [(task, r) for r in sorted(offered, key=u.__getitem__) if y[r] == kind[1]]
            order = sorted(pools)
            whole, rest = divmod(size, len(order))
            now = [p for i, kind in enumerate(order) for p in pools[kind][: whole + (i < rest)]]
        history.append([*steps, list(now)])
    return history


def assert_uniform(found: NDArray[np.int64], times: int, each: int) -> None:
    """How often N things were among `each` of them, drawn `times` times without replacement, all alike.

    Of one draw the indicators have variance p (1 - p) and covariance -p (1 - p) / (N - 1), so the squares below sum up
    to chi-square with N - 1 degrees of freedom.
    """
    assert found.sum() == times * each
    n, p = len(found), each / len(found)
    statistic = (n - 1) / n * ((found - times * p) ** 2).sum() / (times * p * (1 - p))
    assert stats.chi2.ppf(1e-4, n - 1) < statistic < stats.chi2.ppf(1 - 1e-4, n - 1)


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["own classes", "the same examples"])
@pytest.mark.parametrize("size", [1, 3, 7, 20, 29, 100])
@pytest.mark.parametrize("policy", PLAIN)
def test_contents_are_those_of_plain_lists(policy, size, shared):
    """Also where a mini-batch is larger than the memory, and examples are trained on more than once."""
    made = course(epochs=2, shared=shared)
    for seed in (1, 2):
        expected = plain(policy, size, made, seed)
        found = goes_through(POLICIES[policy](size), made, seed)
        assert [after for _, after in found] == [steps[-1] for steps in expected]


@pytest.mark.parametrize("size", [1, 3, 7, 20])
@pytest.mark.parametrize("policy", FILLING)
def test_slots_say_where_every_example_went(policy, size):
    """Written out step by step, they lead to the contents; of several that go to one slot, the last stays."""
    made = course(epochs=2)
    table: list[Pair | None] = [None] * size
    several = 0
    for task, (one, after) in enumerate(goes_through(FILLING[policy](size), made, 3)):
        for batch, slots in zip(made.batches[task].tolist(), one.slot.tolist(), strict=True):
            written = [at for at in slots if at < size]
            assert len(set(written)) == len(written)
            several += len(written) < len(slots)
            for row, at in zip(batch, slots, strict=True):
                if at < size:
                    table[at] = (task, row)
        assert table[: len(after)] == after
    assert several


@pytest.mark.parametrize("size", [0, 1, 5, 17, 72, 1000])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_size_is_reached_and_never_exceeded(policy, size):
    made, of = course(), POLICIES[policy](size)
    for task, (one, after) in enumerate(goes_through(of, made, 1)):
        assert len(set(after)) == len(after) == min(size, 24 * (task + 1))
        assert one.slot.max() <= size
        assert (one.recalled is None) == (task == 0 or size == 0)
        assert policy != "end_of_task" or (one.slot == size).all()  # nothing is offered in training
    assert size or (of.offer, of.settle) == (None, None)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_size_below_zero_is_refused(policy):
    with pytest.raises(UserError, match=r"^method\.memory\.size=-1: must be at least 0, in examples$"):
        POLICIES[policy](-1)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_example_is_offered_once_however_many_epochs(policy):
    """So later epochs change nothing; a memory for all holds each once."""
    for size in (10, 100):
        once, often = (goes_through(POLICIES[policy](size), course(epochs=epochs), 5) for epochs in (1, 4))
        assert [after for _, after in once] == [after for _, after in often]
        assert all((one.slot[3:] == size).all() for one, _ in often)  # 24 examples, 8 at a time
    assert [len(after) for _, after in often] == [24, 48, 72]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_decides_the_contents_and_what_is_recalled(policy):
    made, of = course(epochs=2), POLICIES[policy](10)
    first, again, other = (goes_through(of, made, seed) for seed in (1, 1, 2))
    assert [after for _, after in first] == [after for _, after in again]
    assert all(torch.equal(a.items, b.items) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not torch.equal(first[2][0].items, other[2][0].items)
    if policy != "ring":  # which draws nothing
        assert first[2][1] != other[2][1]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_recalled_moves_no_other_draw(policy):
    """Whether and how much earlier tasks recalled changes neither contents nor what the next task recalls."""
    made, of = course(), POLICIES[policy](10)
    drawing, silent = goes_through(of, made, 4), goes_through(of, made, 4, draws=False)
    assert [after for _, after in drawing] == [after for _, after in silent]
    assert all(torch.equal(a.slot, b.slot) for (a, _), (b, _) in zip(drawing, silent, strict=True))
    assert all(one.recalled is None for one, _ in silent)
    contents = Contents()
    for task, rows in enumerate(made.batches[:2]):
        kept(of, contents, made.curriculum, 4, task, rows, draws=False)
    alone = kept(of, contents, made.curriculum, 4, 2, made.batches[2], draws=True)
    assert torch.equal(alone.items, drawing[2][0].items)


# --- the law of each policy -----------------------------------------------------------------------------------------


def test_survival_under_insert_all_is_geometric():
    """After n further insertions an item is still there with (1 - 1/M)^n.

    Slots are hit independently of each other's age, and indicators of different slots that are not hit are negatively
    correlated, so the number of survivors of R seeds has at most the variance of R M independent ones; bound: 4 sigma.
    """
    size, seeds, made = 20, range(300), course(n_tasks=4, per_class=10, size=10)
    survivors = np.zeros(4)
    for seed in seeds:
        for task, (_, after) in enumerate(goes_through(memory.insert_all(size), made, seed, draws=False)):
            survivors[task] += sum(of == 0 for of, _ in after)
    assert survivors[0] == size * len(seeds)  # 20 examples fill it
    for task in (1, 2, 3):
        p, n = (1 - 1 / size) ** (20 * task), size * len(seeds)
        assert abs(survivors[task] - n * p) < 4 * (n * p * (1 - p)) ** 0.5


def test_a_reservoir_is_a_uniform_sample_of_everything_offered():
    size, seeds, made = 12, range(600), course(n_tasks=2, per_class=10, size=5)
    found = np.zeros(40, dtype=np.int64)
    for seed in seeds:
        found[[row for _, row in final(memory.reservoir(size), made, seed)]] += 1
    assert_uniform(found, len(seeds), size)


@pytest.mark.parametrize("size", [3, 8, 13, 30])
@pytest.mark.parametrize("policy", ["ring", "class_balanced"])
def test_classes_are_balanced_as_far_as_they_can_be(policy, size):
    """A class that lags by more than one has never lost an item.

    In the tasks here every class has more than its share, so after each task counts differ by at most one.
    """
    n_tasks = 5
    made = course(n_tasks=n_tasks, per_class=16)
    for seed in (1, 2, 3):
        for task, (_, after) in enumerate(goes_through(FILLING[policy](size), made, seed)):
            number = counts(after, made)
            each = [number[k, 2 * k + c] for k in range(task + 1) for c in range(2)]
            assert sum(each) == size
            assert max(each) - min(each) <= 1


@pytest.mark.parametrize("policy", ["ring", "class_balanced"])
def test_a_class_that_lags_has_lost_nothing(policy):
    """Classes of 2, 5, 40, 3, 60 and 9 examples, offered in disorder; the memory is checked after every example."""
    y = torch.arange(6).repeat_interleave(torch.tensor([2, 5, 40, 3, 60, 9]))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    u, contents, of, size = chances(1, 0, len(y)), Contents(), FILLING[policy](24), 24
    seen: Counter[int] = Counter()
    lagging = 0
    for row in order.tolist():
        seen[int(y[row])] += 1
        contents.seen += 1
        item = memory.Item(row, int(y[row]), 0)
        slot = of.offer(contents, item, u[row])
        if slot is not None:
            contents.put(slot, item)
        number = Counter(one.class_id for one in contents.slots)
        assert len(contents.slots) == min(size, seen.total())
        if len(contents.slots) == size:
            for c in seen:
                lagging += number[c] < max(number.values()) - 1
                assert number[c] >= max(number.values()) - 1 or number[c] == seen[c]
    assert lagging
    assert (number[0], number[3]) == (2, 3)
    assert sorted(number[c] for c in (1, 2, 4, 5)) == [4, 5, 5, 5]


@pytest.mark.parametrize("size", [1, 5, 12, 31])
def test_a_ring_holds_the_latest_of_each_class(size):
    """Of each class exactly as many as it has slots, whatever their number."""
    made = course(per_class=16, epochs=2)
    for task, (_, after) in enumerate(goes_through(memory.ring(size), made, 1)):
        number = counts(after, made)
        expected = []
        for k in range(task + 1):
            offered = list(dict.fromkeys(made.batches[k].flatten().tolist()))
            for c in made.curriculum.tasks[k].classes:
                of_class = [(k, row) for row in offered if made.curriculum.y[row] == c]
                expected += of_class[len(of_class) - number[k, c] :]
        assert sorted(after) == sorted(expected)


def test_class_balanced_keeps_early_examples_and_evicts_uniformly():
    """One class fills the memory, the other then takes half of it: of the first each is as likely to be left."""
    size, seeds = 12, range(400)
    y = torch.arange(2).repeat_interleave(12)
    made = Course(Curriculum(y, y, ()), [torch.arange(24).view(6, 4)])
    found = np.zeros(24, dtype=np.int64)
    for seed in seeds:
        found[[row for _, row in final(memory.class_balanced(size), made, seed)]] += 1
    assert_uniform(found[:12], len(seeds), 6)
    assert (found[12:18] == len(seeds)).all()
    assert (found[18:] == 0).all()


@pytest.mark.parametrize("shared", [False, True], ids=["own classes", "the same examples"])
@pytest.mark.parametrize("size", [6, 16, 23])
def test_end_of_task_has_exact_quotas_and_thins_older_classes(size, shared):
    """M / (classes so far), the first of them one more; classes of tasks with the same classes count for each."""
    made = course(n_tasks=3, shared=shared)
    for seed in (1, 2):
        earlier: list[Pair] = []
        for task, (_, after) in enumerate(goes_through(memory.end_of_task(size), made, seed)):
            classes = [(k, c) for k in range(task + 1) for c in made.curriculum.tasks[k].classes]
            whole, rest = divmod(size, len(classes))
            assert counts(after, made) == {kind: whole + (i < rest) for i, kind in enumerate(classes)}
            assert {of for of in after if of[0] < task} <= set(earlier)
            earlier = after


def test_end_of_task_draws_uniformly_from_what_was_trained_on():
    """Also after older classes have been thinned twice. One mini-batch of each task is never trained on."""
    seeds, made = range(400), course()
    found = np.zeros((3, 24), dtype=np.int64)
    part = made._replace(batches=[rows[:2] for rows in made.batches])
    for seed in seeds:
        for task, row in final(memory.end_of_task(18), part, seed):
            found[task, row - 24 * task] += 1
    for task, rows in enumerate(part.batches):
        trained = rows.flatten() - 24 * task
        for of_class in (trained[trained < 12], trained[trained >= 12]):
            assert_uniform(found[task, of_class.numpy()], len(seeds), 3)
    assert found.sum() == 18 * len(seeds)


# --- what is recalled -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 8, 20, 29])
@pytest.mark.parametrize("policy", PLAIN)
def test_what_is_recalled_is_in_the_memory_before_the_step(policy, size):
    """Each at most once where there are enough; before the second task, nothing. Mini-batches are of 8."""
    made = course(epochs=2)
    found, expected = goes_through(POLICIES[policy](size), made, 6), plain(policy, size, made, 6)
    repeated = 0
    for task, (one, _) in enumerate(found):
        if task == 0:
            assert one.recalled is None
            continue
        assert one.recalled is not None
        for i, slots in enumerate(one.recalled.tolist()):
            now = expected[task][i]
            assert [now[at] for at in slots] == [(t, row) for row, t in one.items[i].tolist()]
            repeated += len(set(slots)) < len(slots)
            assert len(set(slots)) == len(slots) or size < 8
    assert repeated if size < 8 else not repeated


@pytest.mark.parametrize("size", [5, 20])
def test_draws_are_uniform_over_the_memory_and_fresh_at_every_step(size):
    """Of end_of_task, whose contents a task does not change; with replacement each of the 8 is a draw of its own."""
    made = course(n_tasks=2, epochs=200)
    one, _ = goes_through(memory.end_of_task(size), made, 1)[1]
    assert one.recalled is not None
    found = np.bincount(one.recalled.flatten().numpy(), minlength=size)
    steps = len(one.recalled)
    assert_uniform(found, *((steps, 8) if size >= 8 else (8 * steps, 1)))
    together = one.recalled[1:].sort(1).values == one.recalled[:-1].sort(1).values
    assert together.all(1).double().mean() < 0.05


@pytest.mark.parametrize("scenario", ["task", "domain", "class_"])
@pytest.mark.parametrize("policy", ["reservoir", "end_of_task"])
def test_recalled_examples_have_labels_and_logits_of_their_own_task(policy, scenario):
    """Split digits: task k has the classes 2k and 2k + 1; of two seeds."""
    benchmark = thinned(digits(), 40)
    experiment = made_experiment(benchmark, getattr(scenarios, scenario)(), batch_size=8)
    method = Method(needs=Needs(memory=POLICIES[policy](30)))
    seeds, task = [2, 5], 3
    drawn = batches(experiment, seeds, task, (task,))
    recalled = aids(experiment, start(experiment, seeds), task, method, drawn).recalled
    assert recalled is not None
    active = {
        "task": lambda owner: {2 * owner, 2 * owner + 1},
        "domain": lambda owner: {0, 1},
        "class_": lambda owner: set(range(2 * task + 2)),
    }[scenario]
    owners: set[int] = set()
    for s, seed in enumerate(seeds):
        y = benchmark.curriculum(seed).y
        for i in range(experiment.steps(task)):
            x, label, mask = minibatch(benchmark, recalled, torch.tensor([0, 1]), i)
            for j in range(8):
                row, owner = int(recalled.rows[s, i, j]), int(recalled.owner[s, i, j])
                owners.add(owner)
                assert owner == int(y[row]) // 2
                assert int(label[s, j]) == (int(y[row]) % 2 if scenario == "domain" else int(y[row]))
                assert set(mask[s, j].nonzero()[:, 0].tolist()) == active(owner)
                assert torch.equal(x[s, j], benchmark.x[row].double() / 16)
    assert owners == ({0, 1, 2} if policy == "end_of_task" else {0, 1, 2, 3})  # the task's own, as it goes on


def test_recalled_examples_have_the_pixels_of_their_own_task():
    """Permuted digits: one example may be in the memory as several tasks saw it."""
    benchmark = thinned(permuted("digits", 3, 16.0, data_dir=".", device="cpu", dtype=torch.float64), 24)
    experiment = made_experiment(benchmark, scenarios.domain(), batch_size=8)
    method = Method(needs=Needs(memory=memory.end_of_task(40)))
    for take, seeds in ((0, [7]), (torch.tensor([1, 0]), [7, 9])):
        drawn = batches(experiment, seeds, 2, (2,))
        recalled = aids(experiment, start(experiment, seeds), 2, method, drawn).recalled
        assert recalled is not None
        assert set(recalled.owner.flatten().tolist()) == {0, 1}
        for i in range(3):
            x, _, _ = minibatch(benchmark, recalled, take, i)
            for k, s in enumerate([0] if len(seeds) == 1 else [1, 0]):
                tasks, images = benchmark.curriculum(seeds[s]).tasks, x if len(seeds) == 1 else x[k]
                for j, image in enumerate(images):
                    row, owner = int(recalled.rows[s, i, j]), int(recalled.owner[s, i, j])
                    expected = [benchmark.x[row].flatten()[p].item() / 16 for p in tasks[owner].pixels]
                    assert image.flatten().tolist() == expected


def test_memories_follow_the_mini_batches_of_the_tasks_before():
    """Of the run's own order stream, with as many steps as each task has."""
    benchmark = thinned(digits(), 40)
    experiment = made_experiment(benchmark, batch_size=8)._replace(iterations=[3, 1, 7, 2, 2])
    method = Method(needs=Needs(memory=memory.ring(1000)))
    drawn = batches(experiment, [3], 3, (3,))
    recalled = aids(experiment, start(experiment, [3]), 3, method, drawn).recalled
    assert recalled is not None
    tasks = benchmark.curriculum(3).tasks
    trained = []
    for k, steps in enumerate([3, 1, 7]):  # the seventh is of a second epoch
        order = rng.batches(rng.stream(3, "order", k), 40, 8, steps).flatten()
        trained += list(dict.fromkeys(tasks[k].rows[order].tolist()))
    assert len(trained) == 24 + 8 + 40
    # before the first step the memory is `trained`, in this order; then mini-batches follow
    whole = trained + drawn.rows[0, 0].tolist()
    assert recalled.at[0, 0].max() < len(trained)
    assert recalled.rows[0].tolist() == [[whole[at] for at in step] for step in recalled.at[0].tolist()]


@pytest.mark.parametrize(
    ("size", "available", "expected"),
    [
        (20, [100, 3], [17, 3]),
        (20, [3, 100, 8], [3, 9, 8]),
        (5, [9, 9, 9], [2, 2, 1]),
        (4, [1, 1], [1, 1]),
        (2, [0, 1, 7, 7], [0, 1, 1, 0]),
        (0, [3], [0]),
        (3, [], []),
    ],
)
def test_a_memory_of_classes_is_full_and_as_equal_as_can_be(size, available, expected):
    assert memory.shares(size, available) == expected


def test_end_of_task_uses_the_room_that_a_small_class_leaves():
    contents, settle = memory.Contents(), memory.end_of_task(20).settle
    tasks = [[memory.Item(row, int(row >= 100), 0) for row in range(103)], [memory.Item(row, 2, 1) for row in range(9)]]
    for items, left in zip(tasks, ([17, 3], [9, 3, 8]), strict=True):
        settle(contents, items, np.random.default_rng(0).random(len(items)).tolist())
        assert [len(slots) for slots in contents.of_kind.values()] == left
        assert len({(item.row, item.task) for item in contents.slots}) == 20
