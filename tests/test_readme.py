"""What the README and the pages of docs/ tell a user to type exists and is accepted; the README is short."""

import re
import shlex
import subprocess
from dataclasses import fields
from itertools import product
from pathlib import Path

import cli
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cl_repro import export
from cl_repro.study.config import CONF, Schema

BESIDE_HYDRA = tuple(f"python -m cl_repro {command} " for command in ("status", "plan", "translate"))

README = (cli.ROOT / "README.md").read_text(encoding="utf-8")
# What docs/extend.md says to type needs its files: `test_stranger.py` writes them and runs it.
PAGES = [page for page in sorted((cli.ROOT / "docs").rglob("*.md")) if page.name != "extend.md"]


def commands(text: str) -> list[str]:
    """The lines of its shell blocks, without comments."""
    blocks = re.findall(r"```shell\n(.*?)```", text, flags=re.DOTALL)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


LINES = list(
    dict.fromkeys([*commands(README), *(line for page in PAGES for line in commands(page.read_text("utf-8")))])
)
MAKE = [line for line in LINES if line.startswith("make ")]
BESIDE = [line for line in LINES if line.startswith(BESIDE_HYDRA)]
EXPORT = [line for line in LINES if "python -m cl_repro export " in line]
APPLICATION = [line for line in LINES if line.startswith("python -m cl_repro") and line not in (*BESIDE, *EXPORT)]


def test_the_readme_can_be_read() -> None:
    assert len(README.splitlines()) <= 150
    assert re.findall(r"^## (.*)", README, re.MULTILINE) == [
        "What was found",
        "Two commands",
        "The published study",
        "The shell",
        "The Fisher in your own code",
        "Where is what, and where yours goes",
        "The studies",
        "Limits",
        "Links",
    ]


def test_every_command_is_one_that_is_tried_here() -> None:
    of_readme = commands(README)
    assert {"make reproduce", "make test"} <= set(of_readme)
    assert len([line for line in of_readme if line in APPLICATION]) == 4
    rest = set(LINES) - {*MAKE, *BESIDE, *EXPORT, *APPLICATION}
    assert rest == {". .venv/bin/activate", 'eval "$(cl-repro -sc install=bash)"'}


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_the_target(line: str) -> None:
    subprocess.run([*shlex.split(line), "-n"], cwd=cli.ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("line", APPLICATION)
def test_the_application_accepts_it(line: str) -> None:
    words = [word for word in shlex.split(line)[3:] if not word.startswith("-") and word != "job"]
    jobs = list(product(*([word] if "[" in word else expand(word) for word in words)))
    assert cli.arms(*(word for word in jobs[0] if not word.startswith("hydra")))
    assert " -m " in line.split("cl_repro")[1] or "hydra/launcher" not in line
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in jobs:  # of a sweep: all that it changes are values; the arms are those of the first
            assert OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)


def expand(word: str) -> list[str]:
    """key=a,b of a sweep -> [key=a, key=b]."""
    key, values = word.split("=", 1)
    return [f"{key}={value}" for value in values.split(",")]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in commands(README) if line in APPLICATION])
def test_the_application_runs_what_the_readme_says(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = [] if "--cfg" in line else ["iterations=2", "seeds=[1]", "device=cpu", "workers=1"]
    assert cli.run(monkeypatch, tmp_path, *shlex.split(line)[3:], *small) == 0
    out = capfd.readouterr().out
    assert "batch_size: 16" in out if "--cfg" in line else "results/tables/" in out


@pytest.mark.parametrize("line", BESIDE)
def test_what_is_beside_hydra_accepts_it(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [] if " translate " in line else ["iterations=2", "seeds=[1]", "grid=one", "device=cpu", "workers=1"]
    words = [word for word in shlex.split(line)[3:] if not word.startswith("grid=")]
    assert cli.run(monkeypatch, tmp_path, *words, *small) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("line", EXPORT)
def test_export_takes_it_for_a_study_that_is_there(line: str) -> None:
    given = export.parser().parse_args(shlex.split(line.partition(" export ")[2]))
    assert all((cli.ROOT / "results" / name / "runs.csv").is_file() for name in given.names)


def test_the_groups_and_their_choices_exist() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", README, re.MULTILINE)
    assert {group for group, _ in rows} == {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"}
    for group, choices in rows:
        assert [one for one in re.findall(r"`([^`]+)`", choices) if not (CONF / group / f"{one}.yaml").is_file()] == []


def test_the_loop_of_the_readme_keeps_the_first_task_by_lambda() -> None:
    """The further lambda holds, the nearer the weights end to where the first task ended."""
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(block.strip().splitlines()) <= 14
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    tasks = [(x, (x[:, 0] > 0).long()), (x, (x[:, 1] > 0).long())]

    def ends(tasks: list[tuple[torch.Tensor, torch.Tensor]], lam: float) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        space = {"torch": torch, "model": model, "tasks": tasks, "iterations": 60, "lam": lam, "optimizer": optimizer}
        exec(block, space)
        assert set(space["importance"]) == {"weight", "bias"}
        return space["anchor"]["weight"]

    first = ends(tasks[:1], 0.0)
    free, held, strongly = (float((ends(tasks, lam) - first).norm()) for lam in (0.0, 3.0, 30.0))
    assert free > 1.5 * held > 2 * strongly > 0


def test_completion_lists_the_choices(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "cl-repro fisher=")
    assert cli.run(monkeypatch, cli.ROOT, "-sc", "query=bash") == 0
    assert {"fisher=exact", "fisher=sample", "fisher=batched"} <= set(capfd.readouterr().out.split())


def test_help_names_every_command_and_says_what_every_key_means(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(monkeypatch, cli.ROOT, "--help") == 0
    said = capfd.readouterr().out
    assert all(f"\n  cl-repro {command} " in said for command in ("status", "plan", "translate", "export", "-m"))
    keys = {field.name for field in fields(Schema)} | {path.name for path in CONF.iterdir() if path.is_dir()}
    meanings = dict(re.findall(r"^  (\w+) {2,}(\S.*)$", said, re.MULTILINE))
    assert keys - {"hydra", "memory", "fisher"} == set(meanings)  # a method brings the other two
    assert "fisher=" in meanings["method"] and "fisher: af, batched" in said and "memory: class_balanced" in said
