"""Masks and labels of the three scenarios, on tasks with unsorted and distant classes."""

import pytest
import torch

from cl_repro.benchmarks import scenarios
from cl_repro.common.errors import UserError
from cl_repro.types import Benchmark, Task


def make_task(*classes: int, first_class: int = 0) -> Task:
    rows = torch.arange(0)
    return Task(rows, rows, classes, first_class=first_class)


SPLIT = (make_task(0, 1), make_task(5, 3), make_task(2, 4))
PERMUTED = (make_task(0, 1, 2), make_task(3, 4, 5, first_class=3))  # y is 0, 1 or 2 in both
BENCHMARK = Benchmark(
    x=torch.zeros(0, 2, dtype=torch.uint8),
    x_test=torch.zeros(0, 2, dtype=torch.uint8),
    to_input=lambda x: x.float(),
    curriculum=lambda seed: None,
    n_tasks=3,
    n_classes=6,
    checksum="",
)


def test_task_scenario_has_every_class_and_asks_only_among_the_tasks_own():
    scenario = scenarios.task()
    assert scenario.n_outputs(BENCHMARK, SPLIT) == 6
    for trained in range(3):
        assert [scenario.active(SPLIT, trained, k) for k in range(3)] == [(0, 1), (3, 5), (2, 4)]


def test_class_scenario_asks_among_the_classes_seen_so_far_whichever_task_is_asked():
    scenario = scenarios.class_()
    assert scenario.n_outputs(BENCHMARK, SPLIT) == 6
    seen = [(0, 1), (0, 1, 3, 5), (0, 1, 2, 3, 4, 5)]
    for asked in range(3):
        assert [scenario.active(SPLIT, k, asked) for k in range(3)] == seen


@pytest.mark.parametrize(("tasks", "size"), [(SPLIT, 2), (PERMUTED, 3)])
def test_domain_scenario_shares_all_outputs_between_tasks(tasks, size):
    scenario = scenarios.domain()
    assert scenario.n_outputs(BENCHMARK, tasks) == size
    for trained in range(len(tasks)):
        for asked in range(len(tasks)):
            assert scenario.active(tasks, trained, asked) == tuple(range(size))


@pytest.mark.parametrize("scenario", [scenarios.task(), scenarios.class_()])
def test_a_class_is_its_own_logit_in_the_task_and_class_scenarios(scenario):
    y = torch.tensor([3, 5, 5, 3])
    assert torch.equal(scenario.label(y, SPLIT[1]), y)
    assert scenario.label(torch.tensor([2, 0]), PERMUTED[0]).tolist() == [2, 0]
    assert scenario.label(torch.tensor([2, 0]), PERMUTED[1]).tolist() == [5, 3]


def test_domain_label_is_the_position_among_the_sorted_classes():
    label = scenarios.domain().label
    assert label(torch.tensor([3, 5, 5]), SPLIT[1]).tolist() == [0, 1, 1]
    assert label(torch.tensor([[4, 2], [2, 4]]), SPLIT[2]).tolist() == [[1, 0], [0, 1]]
    assert label(torch.tensor([2, 0, 1]), PERMUTED[1]).tolist() == [2, 0, 1]
    assert label(torch.tensor([3]), SPLIT[1]).dtype == torch.int64


@pytest.mark.parametrize("factory", [scenarios.task, scenarios.domain, scenarios.class_])
@pytest.mark.parametrize("tasks", [SPLIT, PERMUTED])
def test_every_label_of_a_task_is_an_active_logit_when_the_task_is_trained(factory, tasks):
    scenario = factory()
    for k, of in enumerate(tasks):
        labels = scenario.label(torch.tensor(of.classes) - of.first_class, of).tolist()
        active = scenario.active(tasks, k, k)
        assert set(labels) <= set(active)
        assert list(active) == sorted(set(active))
        assert max(active) < scenario.n_outputs(BENCHMARK, tasks)
        assert len(set(labels)) == len(of.classes)


def test_domain_scenario_refuses_tasks_of_different_sizes():
    tasks = (make_task(0, 1), make_task(2, 3, 4))
    with pytest.raises(UserError, match=r"scenario=domain: tasks have \[2, 3\] classes"):
        scenarios.domain().n_outputs(BENCHMARK, tasks)
