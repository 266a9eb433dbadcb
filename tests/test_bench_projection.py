"""That the bench of projections times what its rows say."""

from functools import partial
from pathlib import Path

import torch
from made_experiments import made_experiment

from benches import projection
from benches.measure import Setting
from benches.workloads import all_steps
from cl_repro.methods import gpm


def test_candidates_take_steps_across_bases_of_their_rank(monkeypatch) -> None:
    monkeypatch.setattr(projection, "RANKS", {2: 1.3, 5: 1.5})
    monkeypatch.setattr(projection, "COLUMNS", (3,))
    monkeypatch.setattr(projection, "TASKS", (1, 2))
    experiment = made_experiment(dtype=torch.float32, optimiser=partial(torch.optim.SGD, lr=0.05))
    works, ended = projection.courses(experiment), {}
    assert set(works) == {"finetune", *projection.targets()}
    for name, work in works.items():
        before = {n: p.clone() for n, p in work.stack.params.items()}
        all_steps(work)
        ended[name] = {n: p[0] - before[n][0] for n, p in work.stack.params.items()}
    for rank in projection.RANKS:
        name = f"gpm, rank {rank} in every layer"
        for layer, m in works[name].state.basis.items():
            assert m.shape[1] == min(rank, len(m))
            step = torch.cat([ended[name][f"{layer}.weight"], ended[name][f"{layer}.bias"][:, None]], 1)
            assert (step @ m).abs().max() < 1e-5
            assert step.abs().max() > 1e-3
    basis = works["ogd, basis of 3"].state.basis
    assert (basis.mT @ torch.cat([d.flatten() for d in ended["ogd, basis of 3"].values()])).abs().max() < 1e-5
    two = "progressive, 2 columns of 784-400-400 with adapters"
    assert works[two].experiment.net.columns == 2
    assert gpm.weights(works[two].stack.params).keys() >= {"c1.fc1", "c2.head"}


def test_without_cuda_its_rows_say_so() -> None:
    assert [row.value for row in projection.on(Setting(1, Path("nowhere"), "cpu"), "cuda")] == [None] * 2
