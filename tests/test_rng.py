"""Named random streams, and the mini-batches drawn from them."""

import itertools

import pytest
import torch

from cl_repro.common import rng


def numbers(*key, n=5):
    return tuple(torch.rand(n, generator=rng.stream(*key), dtype=torch.float64).tolist())


def test_a_stream_depends_on_seed_name_and_task_alone():
    before = numbers(3, "order", 2)
    torch.manual_seed(77)
    torch.rand(10)
    numbers(4, "labels", 2, n=100)
    assert numbers(3, "order", 2) == before
    generators = [rng.stream(3, "order", 2), rng.stream(3, "labels", 2)]  # drawn from in turn
    mixed = [[torch.rand((), generator=g, dtype=torch.float64).item() for g in generators] for _ in range(5)]
    assert tuple(pair[0] for pair in mixed) == before


def test_streams_of_different_keys_differ():
    keys = list(itertools.product([0, 1, 11, 2**31, 2**32 - 1], ["init", "order", "fisher_order"], [0, 1, 10, 11]))
    assert len({numbers(*key) for key in keys}) == len(keys)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.randperm(10, generator=rng.stream(1, "order"))
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_are_the_ones_of_the_recorded_results():
    """If this fails, every run changes: raise identity.SCHEMA_VERSION and record the results again."""
    assert rng.stream(1, "init").initial_seed() == 10211609190452959983
    assert rng.stream(1, "order", 4).initial_seed() == 4508271693969799232
    assert rng.batches(rng.stream(1, "order", 4), 7, 3, 2).tolist() == [[6, 4, 3], [0, 1, 5]]


@pytest.mark.parametrize(
    ("n", "batch_size", "iterations"), [(23, 5, 17), (20, 5, 8), (7, 7, 3), (10, 6, 4), (9, 1, 20)]
)
def test_every_epoch_is_a_shuffle_without_the_incomplete_batch(n, batch_size, iterations):
    drawn = rng.batches(rng.stream(1, "order"), n, batch_size, iterations)
    assert drawn.shape == (iterations, batch_size)
    assert drawn.dtype == torch.int64
    per_epoch = n // batch_size
    epochs = [epoch.flatten().tolist() for epoch in drawn.split(per_epoch)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(n))
    for epoch in epochs[: iterations // per_epoch]:
        assert len(epoch) == per_epoch * batch_size
    assert len(set(map(tuple, epochs))) == len(epochs)  # each epoch its own order


def test_every_example_is_left_out_at_times_and_used_at_times():
    drawn = rng.batches(rng.stream(1, "order"), 7, 5, 60)
    used = torch.bincount(drawn.flatten(), minlength=7)
    assert (used > 60 * 5 / 7 * 0.75).all()
    assert (used < 60).all()


def test_a_longer_run_starts_like_a_shorter_one():
    short, long = (rng.batches(rng.stream(1, "order"), 23, 5, iterations) for iterations in (6, 30))
    assert torch.equal(long[:6], short)
