"""Arms of a study: blocks of them, `for_each`, beside what the committed results were made of, and some by name."""

import csv
from typing import Any

import cli
import pytest
import yaml
from omegaconf import OmegaConf

from cl_repro.study import grid
from cl_repro.study.compose import labelled, written_out
from cl_repro.study.config import CONF

RESULTS = cli.ROOT / "results"
BLOCKS = ("context_window", "hsu2018_table2", "palliatives_split_mnist", "replay_vs_ewc")  # with results


def of_study(name: str) -> list[dict[str, Any]]:
    """Its arms, not composed."""
    given: Any = OmegaConf.to_container(OmegaConf.load(CONF / "study" / f"{name}.yaml"))
    assert any("for_each" in one for one in given["arms"])
    return written_out(given["arms"])


def test_a_block_is_its_arms_for_each_choice_in_turn() -> None:
    inner = {"for_each": {"n": [1, 2]}, "arms": [{"method": "b", "lam": {"x": 3.0, "y": 4.0}, "label": "b-{}"}]}
    block = {"for_each": {"s": ["x", "y"]}, "arms": [{"method": "a", "s": "y"}, inner, {"method": "c-{}", "t": [1]}]}
    assert written_out([{"method": "first"}, block, {"method": "last"}]) == [
        {"method": "first"},
        {"s": "x", "n": 1, "method": "b", "lam": 3.0, "label": "b-1"},
        {"s": "x", "n": 2, "method": "b", "lam": 3.0, "label": "b-2"},
        {"s": "x", "method": "c-x", "t": [1]},
        {"s": "y", "method": "a"},
        {"s": "y", "n": 1, "method": "b", "lam": 4.0, "label": "b-1"},
        {"s": "y", "n": 2, "method": "b", "lam": 4.0, "label": "b-2"},
        {"s": "y", "method": "c-y", "t": [1]},
        {"method": "last"},
    ]


@pytest.mark.parametrize("name", BLOCKS)
def test_the_arms_are_those_that_the_committed_results_were_made_of(name: str) -> None:
    """Written out beside every run, one by one and in the same order."""
    path = min((RESULTS / name / "configs").iterdir())
    listed = yaml.safe_load(path.read_bytes())["arms"]
    for arm in listed:
        if arm.get("grid.lambdas") == "[0.001,0.01,0.1]":  # as it was written then
            del arm["grid.lambdas"]
            arm |= {"grid.centre": 0.01, "grid.each_side": 1}
    assert of_study(name) == listed


def test_the_arms_of_other_studies() -> None:
    assert of_study("hsu2018_epochs") == [
        {"benchmark.protocol.iterations.epochs": n} | arm | {"label": f"{arm['method']}-{n}_epochs"}
        for n in (1, 4, 16, 64)
        for arm in (
            {"method": "l2", "method.growth": "constant", "grid.centre": 0.5},
            {"method": "ewc_offline", "fisher": "predicted", "grid.centre": 200.0},
            {"method": "si", "method.signed": True, "grid.centre": 3000.0},
            {"method": "mas_batched", "grid.centre": 10000.0},
        )
    ]
    searched = [(arm["model.variant"], arm["method"], arm["label"]) for arm in of_study("tiny_imagenet_search")]
    names = {"si": "si", "sos": "sos", "ewc": "ewc", "mas_logits": "mas"}
    assert searched == [
        (net, method, f"{name}-{net}") for net in ("small", "base", "wide", "deep") for method, name in names.items()
    ]


def test_arms_by_name_are_those_of_the_study_in_its_order() -> None:
    """With every id."""
    all_of_them = [grid.make_arm(cfg) for cfg in cli.arms("study=split_digits_fisher")]
    some = [grid.make_arm(cfg) for cfg in cli.arms("study=split_digits_fisher", "arms=[ewc-exact,finetune]")]
    assert [arm.label for arm in some] == ["finetune", "ewc-exact"]
    assert {(arm.label, arm.config_id, arm.stack_id) for arm in some} < {
        (arm.label, arm.config_id, arm.stack_id) for arm in all_of_them
    }


def test_a_name_of_several_arms_is_all_of_them() -> None:
    si, other = ({"label": None, "fisher": None, "method": {"name": name}} for name in ("si", "mas"))
    arms = [si | {"scenario": "task"}, other, si | {"scenario": "class"}]
    assert labelled(["si"], arms) == [arms[0], arms[2]]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BLOCKS, "hsu2018_epochs"])
def test_every_committed_row_is_of_an_arm_of_today(name: str) -> None:
    """By its name, its scenario and its id."""
    with (RESULTS / name / "runs.csv").open() as file:
        rows = {(row["scenario"], row["arm"], row["config_id"]) for row in csv.DictReader(file)}
    today = [grid.make_arm(cfg) for cfg in cli.arms(f"study={name}", "scale=paper")]
    assert rows == {(arm.cfg["scenario"]["name"], arm.label, arm.config_id) for arm in today}
