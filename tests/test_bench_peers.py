"""The bench of peers: what it compares is one thing, and what cannot be had is said; never how long anything takes."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benches import peers
from benches.measure import Setting, verdict
from benches.modules import VisionTransformer, mlp

SMALL = {
    "small MLP": peers.Network(partial(mlp, [6, 5, peers.CLASSES]), (6,), 9),
    "small ViT": peers.Network(partial(VisionTransformer, 4, 2, 8, 4, peers.CLASSES), (3, 8, 8), 9),
}
COME_WITH = {"BackPACK": "backpack", "nngeometry": "nngeometry", "laplace-torch": "laplace", "curvlinops": "curvlinops"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "NETWORKS", SMALL)
    monkeypatch.setattr(peers, "alone", lambda run, name, who: 1e6)


def test_every_library_is_measured_or_says_why_not(small: None) -> None:
    rows = {row.name: row for row in peers.rows(Setting(1, Path("nowhere")))}
    for peer, module in COME_WITH.items():
        time = rows[f"small MLP, exact Fisher / {peer}"]
        if not find_spec(module):
            assert time.value is None and "is not installed: pip install 'cl_repro[" in time.note
            continue
        assert time.value is not None
        assert verdict(rows[f"small MLP, difference / {peer}"]) == "met"
    refused = rows["small ViT, exact Fisher / BackPACK"]  # it has no rule for a parameter outside of a layer
    assert verdict(refused) == "not measured" and refused.note.startswith("BackPACK refuses: ")


def test_a_way_that_computes_something_else_is_seen(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> peers.Pass:
        return peers.Pass(lambda: 2 * peers.ours(model, x, y).once()[:3], torch.arange(3))

    monkeypatch.setattr(peers, "PEERS", {"twice": (twice, "dev")})
    rows = {row.name: row for row in peers.of_network("small MLP", 1)}
    assert verdict(rows["small MLP, difference / twice"]) == "not met"
    assert "extrapolated" in rows["small MLP, exact Fisher / twice"].note


def test_a_part_of_the_work_counts_as_such() -> None:
    way = peers.Pass(lambda: torch.zeros(3), torch.arange(3), examples=8)
    assert peers.share(way, parameters=60, n=16) == 3 / 60 / 2
    assert peers.share(peers.Pass(lambda: torch.zeros(60)), 60, 16) == 1


def test_the_transformer_gives_logits_of_each_example_for_itself() -> None:
    torch.manual_seed(0)
    model, x = SMALL["small ViT"].make(), torch.rand(3, 3, 8, 8)
    assert model(x).shape == (3, peers.CLASSES)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-6)
