"""Joint training, the upper bound."""

import pytest
import torch
from made_experiments import digits, made_experiment, run
from made_trees import same

from cl_repro.benchmarks import scenarios
from cl_repro.engine import Replica, batches
from cl_repro.engine.needs import trains_on
from cl_repro.methods.baselines import finetune, joint

# --- joint ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task", "domain", "class_"])
def test_joint_trains_on_the_union_of_all_tasks_so_far_each_example_with_its_own_mask(name):
    scenario = getattr(scenarios, name)()
    experiment = made_experiment(scenario=scenario, iterations=60)
    for k in range(5):
        drawn = batches.batches(experiment, [1, 3], k, trains_on(joint(), k))
        for s, seed in enumerate([1, 3]):
            curriculum = experiment.benchmark.curriculum(seed)
            task_of = {int(row): t for t, task in enumerate(curriculum.tasks) for row in task.rows}
            rows, owners = drawn.rows[s].flatten().tolist(), drawn.owner[s].flatten().tolist()
            assert owners == [task_of[row] for row in rows]
            assert set(owners) == set(range(k + 1))
            classes = curriculum.y[drawn.rows[s]]
            seen = sorted({c for task in curriculum.tasks[: k + 1] for c in task.classes})
            for t in range(k + 1):
                own = sorted(curriculum.tasks[t].classes)
                active = {"task": own, "domain": [0, 1], "class_": seen}[name]
                assert drawn.masks[t].nonzero()[:, 0].tolist() == active
                mine = drawn.owner[s] == t
                label = drawn.label[s][mine]
                as_logit = classes[mine] - own[0] if name == "domain" else classes[mine]
                assert torch.equal(label, as_logit)


def test_joint_draws_every_example_of_the_union_equally_often():
    experiment = made_experiment(iterations=10)
    curriculum = experiment.benchmark.curriculum(1)
    pool = torch.cat([task.rows for task in curriculum.tasks[:3]])
    epoch = len(pool) // experiment.batch_size
    drawn = batches.batches(experiment._replace(iterations=epoch), [1], 2, trains_on(joint(), 2))
    rows = drawn.rows.flatten().tolist()
    assert len(set(rows)) == len(rows) == epoch * experiment.batch_size
    assert set(rows) <= set(pool.tolist())


def test_joint_with_one_task_is_finetune():
    experiment = made_experiment(digits(1))
    rows = [Replica(seed, 0.0, None) for seed in (1, 2)]
    found, expected = run(experiment, joint(), rows), run(experiment, finetune(), rows)
    assert same(found.params, expected.params)


def test_joint_is_finetune_until_the_second_task_and_forgets_less():
    experiment = made_experiment(scenario=scenarios.class_(), iterations=60)
    rows = [Replica(seed, 0.0, None) for seed in (1, 2, 3)]
    found, lower = (run(experiment, method, rows).outcomes for method in (joint(), finetune()))
    for a, b in zip(found, lower, strict=True):
        assert (a.accuracy[:2] == b.accuracy[:2]).all()
        assert a.accuracy[-1].mean() > b.accuracy[-1].mean() + 0.3
