"""What the README tells a user to type exists and is accepted."""

import re
import shlex
import subprocess
from itertools import product

import cli
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cl_repro.config import CONF

README = (cli.ROOT / "README.md").read_text()
LINES = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```shell\n(.*?)```", README, flags=re.S)
    for line in block.splitlines()
    if line.strip()
]
MAKE = [line for line in LINES if line.startswith("make ")]
APPLICATION = [line for line in LINES if line.startswith("python -m cl_repro")]


def test_the_readme_has_commands() -> None:
    assert "make reproduce" in MAKE
    assert "make test" in MAKE
    assert len(APPLICATION) >= 5
    assert len(MAKE) + len(APPLICATION) + 1 == len(LINES)  # and the line for completion


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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:scripts|cl_repro|conf)/[\w/.]+\.(?:py|yaml))`", README))))
def test_the_files_it_names_exist(path: str) -> None:
    assert (cli.ROOT / path).is_file()


def test_completion_lists_the_choices(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COMP_LINE", "cl-repro fisher=")
    assert cli.run(monkeypatch, cli.ROOT, "-sc", "query=bash") == 0
    assert {"fisher=exact", "fisher=sample", "fisher=batched"} <= set(capfd.readouterr().out.split())
