"""Every key of every file under conf/ with values that no run can have: one line of ours, and never a traceback."""

import math
from collections.abc import Iterator
from copy import deepcopy
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import cli
import hydra
import pytest
import torch
from omegaconf import OmegaConf
from test_bad_input import composed

from cl_repro.common.errors import UserError
from cl_repro.study.compose import TEXTS, CompositionError, arms_of, literal, one_line
from cl_repro.study.config import CONF, Schema, check
from cl_repro.study.factories import FLAGS, build

HUGE = 10**30
VALUES = [
    math.nan,
    math.inf,
    -1,
    0,
    -0.5,
    HUGE,
    10**400,
    1e300,
    None,
    [],
    ["a"],
    [0.9],
    [HUGE, HUGE],
    {},
    "",
    "many",
    True,
]
GIVEN: dict[str, dict[str, Any]] = {
    "benchmark": {"data_dir": Path("nowhere"), "device": "cpu", "dtype": torch.float32},
    "model": {"input_shape": (3, 32, 32), "n_outputs": 10},
    "optim": {"params": [torch.zeros(2)]},
}
NEEDS = {"fisher": ["method=ewc"], "memory": ["method=replay"]}


def leaves(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a node, and of the nodes in it."""
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict) and key != "protocol":  # which is read where a configuration is composed
            yield from leaves(value, (*path, key))


def distinct(choices: str) -> list[Path]:
    """One file for each factory and its keys."""
    found = {}
    for path in sorted((CONF / choices).rglob("*.yaml")):
        raw = OmegaConf.to_container(OmegaConf.load(path))
        found.setdefault((raw.get("_target_"), tuple(sorted(raw))), path)
    return [path for (target, _), path in found.items() if target or choices == "grid"]


def with_value(node: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at one key."""
    result = inner = deepcopy(node)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return result


def refusal(cfg: dict[str, Any], group: str) -> str | None:
    """How a configuration is refused; None if it is accepted. Whatever else is raised is a traceback."""
    try:
        check(cfg)
        if group in FLAGS:
            made = build(group, cfg[group], **GIVEN.get(group, {}))
            if group == "fisher":
                made.rows(100)
                made.divisor(100)
            if group == "model":
                with torch.device("meta"):
                    made.init(torch.Generator())
    except UserError as error:
        return str(error)
    except RuntimeError as error:
        if "Storage size calculation overflowed" not in str(error):  # `study.check_memory` says so
            raise
        return f"{group}: too large"
    return None


LONG = ("method", "fisher")  # groups of many keys
GROUPS = [
    pytest.param(group, marks=pytest.mark.slow) if group in LONG else group for group in (*FLAGS, "memory", "grid")
]


@pytest.mark.parametrize("choices", GROUPS)
def test_a_value_that_no_run_can_have_is_one_line(
    choices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked, accepted, group = set(), 0, {"memory": "method"}.get(choices, choices)
    for path in distinct(choices):
        choice = path.relative_to(CONF / choices).with_suffix("").as_posix()
        key = "memory@method.memory" if choices == "memory" else choices
        arm = cli.arms(*NEEDS.get(choices, []), f"{key}={choice}")[0]
        for leaf in leaves(arm[group]):
            if (name := (arm[group].get("_target_"), leaf)) in asked:
                continue
            asked.add(name)
            for value in VALUES:
                text = refusal(arm | {group: with_value(arm[group], leaf, value)}, group)
                accepted += text is None
                # A missing data set is named before what is asked of it.
                assert text is None or "\n" not in text, (choice, leaf, value)
                said = text is None or any(word in text for word in (leaf[-1], group, "lambda", "not found"))
                assert said, (choice, leaf, value, text)
    assert asked and accepted < 0.75 * len(asked) * len(VALUES)
    assert not [*tmp_path.iterdir()]


def test_files_of_methods_have_the_defaults_of_their_functions() -> None:
    """But for two: what a study takes is not what a call without arguments is."""
    for path in distinct("method"):
        given = OmegaConf.to_container(OmegaConf.load(path))
        defaults = {
            name: parameter.default
            for name, parameter in signature(hydra.utils.get_object(given["_target_"])).parameters.items()
            if parameter.default is not Parameter.empty
        }
        other = {key for key, value in defaults.items() if key in given and given[key] != value}
        assert other == {"l2": {"growth"}, "gpm": {"increase"}}.get(path.stem, set()), path.name


def typed(value: Any) -> str:
    """As one types it."""
    return (
        {None: "null", "": "''", True: "true"}.get(value, str(value))
        if not isinstance(value, list | dict)
        else (str(value).replace(" ", ""))
    )


@pytest.mark.parametrize("key", [name for name in Schema.__dataclass_fields__ if name not in {*FLAGS, "grid"}])
def test_a_value_that_no_setting_can_have_is_one_line(key: str) -> None:
    for value in VALUES:
        override = literal(f"{key}={typed(value)}")
        try:
            with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
                (arm,) = arms_of(composed("config", [override]), [override])
            check(arm)
        except UserError as error:
            text = str(error)
        except Exception as error:  # what Hydra raises, as the program says it
            text = one_line(error)
            assert isinstance(error, CompositionError), (value, error)
        else:
            continue
        assert "\n" not in text, (value, text)


@pytest.mark.parametrize("text", ["0.10", "1e3", "007", "1_000", "true", "inf", "NaN", ".5"])
def test_text_stays_as_it_is_typed(text: str) -> None:
    for key in sorted(TEXTS):
        assert literal(f"{key}={text}") == f"{key}={text!r}"
    assert literal("lam=0.10") == "lam=0.10"
    assert literal("label=null") == "label=null"
    assert cli.arms(f"label={text}")[0]["label"] == text
