"""That the bench of the palliatives times what its rows say."""

from pathlib import Path

import torch
from made_experiments import made_experiment

from benches import palliatives
from benches.measure import Setting
from benches.workloads import all_steps

NAMES = list(palliatives.METHODS)


def test_every_candidate_takes_the_steps_of_its_method() -> None:
    """Both teachers give the same steps, and all but they differ from each other and from finetuning."""
    experiment = made_experiment(dtype=torch.float32)
    ended = {}
    for name, work in palliatives.courses(experiment).items():
        all_steps(work)
        ended[name] = torch.cat([p.flatten() for p in work.stack.params.values()])
    per_step, per_task, *others = (ended[name] for name in NAMES)
    assert torch.allclose(per_step, per_task, atol=1e-5)
    different = [ended["finetune"], per_task, *others]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(different) for b in different[:i])


def test_a_replayed_step_recalls_as_many_examples_as_it_is_given() -> None:
    experiment = made_experiment()
    for name in NAMES[2:]:
        aid = palliatives.second_task(experiment, palliatives.METHODS[name][0]).aid
        assert aid.recalled.rows.shape == (1, 12, 16)
        assert set(aid.recalled.owner.unique().tolist()) <= {0, 1}
    aid = palliatives.second_task(experiment, palliatives.METHODS[NAMES[0]][0]).aid
    assert aid.recalled is None
    assert aid.teacher is not None and aid.targets is None


def test_without_cuda_its_rows_say_so() -> None:
    setting = Setting(1, Path("nowhere"), "cpu")
    assert [row.value for row in palliatives.on(setting, "cuda")] == [None] * 4
