"""Identity of runs, and how a study is cut into stacks."""

from pathlib import Path

import cli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_repro.records import identity
from cl_repro.study import grid
from cl_repro.study.config import CONF

FISHERS = CONF / "fisher"


def arms(*overrides: str) -> list[grid.Arm]:
    return [grid.make_arm(cfg) for cfg in cli.arms(*overrides)]


def ids(*overrides: str) -> list[str]:
    return [cell.run_id for cell in grid.cells(arms(*overrides))]


@pytest.mark.parametrize(
    "same",
    [
        "lam=1000",
        "lam=1e3",
        "optim.lr=1e-3",
        "name=other",
        "workers=1",
        "data_dir=/else",
        "label=mine",
        "reinit=false",
        "deterministic=true",
        "cuda_graph=true",
    ],
)
def test_what_is_not_science_or_only_spelt_differently_keeps_the_run(same: str) -> None:
    assert ids(same) == ids()


def test_zero_is_one_lambda_with_whichever_sign() -> None:
    assert ids("lam=-0.0") == ids("lam=0")


def test_arms_of_one_configuration_are_told_in_one_line() -> None:
    def told(*choices: str) -> str:
        made = arms(f"arms=[{','.join(f'{{method: ewc, {choice}}}' for choice in choices)}]", "grid.lambdas=[1,10]")
        return grid.repeated(made, grid.cells(made))

    same = "arms of one configuration: b is a, c is a; what they share is run once, as the first's"
    assert told("label: a", "label: b", "label: c") == same
    assert told("label: a", "label: b, method.gamma: 0.5") == ""


@pytest.mark.parametrize("alias", [path.relative_to(FISHERS).with_suffix("") for path in FISHERS.rglob("*_*0.yaml")])
def test_an_estimator_of_n_examples_names_itself(alias: Path) -> None:
    """fisher=exact fisher.n=500 is fisher=exact_500: its name, its arm and its id."""
    base, _, n = str(alias).rpartition("_")
    (named,), (said,) = arms(f"fisher={alias}"), arms(f"fisher={base}", f"fisher.n={n}")
    assert said.cfg["fisher"] == named.cfg["fisher"]
    assert said[2:4] == named[2:4] and said.label == named.label == f"ewc-{alias}"


OTHER_SCIENCE = [
    "lam=1001",
    "iterations=201",
    "iterations=[200,200,200,200,201]",
    "batch_size=31",
    "optim.lr=0.002",
    "optim=adam_reset",
    "fisher=empirical",
    "fisher.n=7",
    "fisher.normalisation=reference",
    "method.gamma=0.5",
    "model.hidden=[99]",
    "scenario=domain",
    "dtype=float64",
    "tf32=true",
    "channels_last=true",
    "reinit=true",
]


@pytest.mark.parametrize("other", OTHER_SCIENCE)
def test_every_scientific_setting_changes_the_run(other: str) -> None:
    assert not set(ids(other)) & set(ids())


def test_seeds_and_lambdas_are_told_apart() -> None:
    assert len(set(ids("seeds=[1,2,3]", "grid=blog"))) == 42


def test_the_same_cell_of_two_studies_is_one_run() -> None:
    assert set(ids("fisher=exact", "lam=1000", "seeds=[1]")) <= set(ids("study=split_digits_fisher"))


def test_a_null_option_that_is_new_renames_nothing() -> None:
    assert identity.digest({"a": 1, "b": None}, 8) == identity.digest({"a": 1}, 8)


def test_arms_that_differ_in_the_estimator_share_stacks() -> None:
    found = arms("study=split_digits_fisher")
    assert len({arm.stack_id for arm in found}) == 2  # finetune, ewc
    assert len({arm.config_id for arm in found}) == 6


@given(st.integers(1, 200), st.integers(1, 6), st.integers(1, 14))
def test_chunks_hold_every_cell_once_within_the_limit(limit: int, n_seeds: int, n_lambdas: int) -> None:
    cfg = {key: {"name": key} for key in identity.SCIENCE} | {"label": None, "seeds": list(range(n_seeds))}
    cfg |= dict.fromkeys(identity.SWITCHES, False)
    plain = {**cfg, "fisher": None, "method": {"name": "n", "uses_lambda": False}, "grid": {"lambdas": []}}
    ewc = [{**cfg, "fisher": {"name": f"f{i}", "n": i}, "grid": {"lambdas": list(range(n_lambdas))}} for i in range(5)]
    found = [grid.make_arm(plain)] + [
        grid.make_arm({**c, "method": {"k": 1, "name": "e", "uses_lambda": True}}) for c in ewc
    ]
    cells = grid.cells(found)
    chunks = grid.chunks(found, cells, {arm.stack_id: limit for arm in found})
    assert sorted(cell for chunk in chunks for cell in chunk) == sorted(cells)
    assert len(cells) == n_seeds * (1 + 5 * n_lambdas)
    for chunk in chunks:
        assert len(chunk) <= limit
        assert len({found[cell.arm].stack_id for cell in chunk}) == 1
        if len({cell.seed for cell in chunk}) > 1:  # whole seeds only
            per_seed = 1 if chunk[0].arm == 0 else 5 * n_lambdas
            assert len(chunk) % per_seed == 0


@pytest.mark.parametrize("switch", identity.SWITCHES)
def test_a_switch_is_science_but_off_renames_no_old_result(switch: str) -> None:
    (off,), (on,) = cli.arms("method=finetune"), cli.arms("method=finetune", f"{switch}=true")
    assert grid.make_arm(off).config_id != grid.make_arm(on).config_id
    before = {key: off[key] for key in identity.SCIENCE}
    assert grid.make_arm(off).config_id == identity.digest(before, 4)


def test_an_arm_is_called_by_its_method_and_fisher_or_as_it_says() -> None:
    assert [arm.label for arm in arms("fisher=empirical")] == ["ewc-empirical"]
    assert [arm.label for arm in arms("method=si")] == ["si"]
    assert [arm.label for arm in arms("fisher=empirical", "label=mine")] == ["mine"]
    assert [arm.label for arm in arms("arms=[{method: si, label: a}, {method: si, method.xi: 1.0}]")] == ["a", "si"]
    (cfg,) = cli.arms("fisher=empirical")
    assert grid.make_arm(cfg | {"fisher": cfg["fisher"] | {"name": "ewc"}}).label == "ewc"  # not twice the same
