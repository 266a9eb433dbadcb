"""A stranger writes the files of docs/extend.md into a copy of the repository, and runs them there."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cl_repro.memory import reservoir

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "extend.md"
BLOCK = re.compile(r"```(?:python|yaml)\n# ((?:cl_repro|conf)/\S+)\n(.*?)```", re.DOTALL)


def written(folder: Path) -> dict[str, str]:
    """Copy what the program is made of, and add the page's files; returns their texts."""
    for name in ("cl_repro", "conf", "tests", "results/published"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Makefile", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    files = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    for name, text in files.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    return files


def test_the_page_has_an_example_of_each() -> None:
    names = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [name for name, _ in names] == [
        "cl_repro/importance/uniform.py",
        "conf/fisher/uniform.yaml",
        "cl_repro/methods/l1.py",
        "conf/method/l1.yaml",
        "cl_repro/methods/strongest.py",
        "conf/method/strongest.yaml",
        "cl_repro/methods/a_gem.py",
        "conf/method/a_gem.yaml",
        "cl_repro/benchmarks/backwards.py",
        "conf/benchmark/backwards.yaml",
        "conf/protocol/digits_long.yaml",
        "conf/study/digits_long.yaml",
    ]


@pytest.mark.slow
def test_the_examples_run_and_their_tests_pass(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    written(copy)
    environment = os.environ | {"PYTHONPATH": str(copy)}

    def call(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    small = ("iterations=20", "seeds=[1]", "device=cpu", "workers=1", "results_dir=results")
    call("-m", "cl_repro", "method=ewc", "fisher=uniform", "lam=100", *small)
    call("-m", "cl_repro", "method=l1", "benchmark=backwards", "lam=1e-4", *small)
    call("-m", "cl_repro", "method=strongest", "fisher=empirical", "lam=100", *small)
    call("-m", "cl_repro", "method=a_gem", "optim=sgd", *small, "seeds=[1,2]")
    call("-m", "cl_repro", "study=digits_long", "scale=smoke", "grid=one", *small)
    with (copy / "results" / "runs" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["fisher"], row["method"], row["benchmark"], row["status"]) for row in rows] == [
        ("uniform", "ewc", "split_digits", "ok"),
        ("", "l1", "backwards", "ok"),
        ("empirical", "strongest", "split_digits", "ok"),
        ("", "a_gem", "split_digits", "ok"),
        ("", "a_gem", "split_digits", "ok"),
    ]
    with (copy / "results" / "digits_long_smoke" / "runs.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"finetune", "ewc", "strongest"}
    chosen = "fisher-uniform or method-l1] or method-strongest or a_gem or benchmark-backwards or protocol-digits_long"
    out = call("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_config.py", "-k", chosen)
    assert re.search(r"\b6 passed", out), out


def of_page(name: str) -> dict:
    """What a Python file of the page defines."""
    space: dict = {"__name__": "example"}
    exec(compile(dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))[name], name, "exec"), space)
    return space


def test_the_method_of_the_page_pulls_from_task_2_on_towards_where_a_task_ended() -> None:
    """Its gradient is lam sign(theta - theta*)."""
    space = of_page("cl_repro/methods/l1.py")
    torch = space["torch"]
    method, params = space["l1"](), {"w": torch.tensor([1.0, -2.0, 0.5])}
    state = method.init(params, torch.tensor(3.0))
    assert method.penalty_grad(state, params)["w"].tolist() == [0, 0, 0]
    state = method.end_task(state, params, {})
    moved = {"w": params["w"] + torch.tensor([0.1, -0.1, 0.0])}
    assert method.penalty_grad(state, moved)["w"].tolist() == [3, -3, 0]


def test_the_method_with_a_fisher_keeps_the_largest_importance() -> None:
    """Its gradient is lam max(F_1, F_2) (theta - theta*)."""
    space = of_page("cl_repro/methods/strongest.py")
    torch = space["torch"]
    method, params = space["strongest"](), {"w": torch.tensor([1.0, -2.0])}
    state = method.init(params, torch.tensor(3.0))
    assert method.penalty_grad(state, params)["w"].tolist() == [0, 0]
    for fisher in ([1.0, 5.0], [2.0, 4.0]):
        state = method.end_task(state, params, {"w": torch.tensor(fisher)})
    assert method.penalty_grad(state, {"w": params["w"] + 1})["w"].tolist() == [3 * 2, 3 * 5]


def test_the_method_with_a_memory_raises_no_loss_of_recalled_examples_to_first_order() -> None:
    """Of linear losses g . theta and m . theta: where they conflict, the step is orthogonal to m; elsewhere it is g."""
    space = of_page("cl_repro/methods/a_gem.py")
    method = space["a_gem"](reservoir(3))

    def objective(params: dict, buffers: dict, state: tuple, batch: dict, recalled: dict) -> tuple:
        return sum((params[name] * batch[name]).sum() for name in params), (buffers, batch["b"])

    params = {"w": torch.zeros(2), "b": torch.zeros(())}
    m = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(-2.0)}  # m . m = 9
    for g, expected in (([1.0, 1.0, 0.0], [1.0, 1.0, 0.0]), ([-3.0, 0.0, 3.0], [-2.0, 2.0, 1.0])):
        batch = {"w": torch.tensor(g[:2]), "b": torch.tensor(g[2])}
        state, found, (_, rest) = method.descend(objective, (), params, {}, batch, m)
        assert [*found["w"].tolist(), found["b"].item()] == pytest.approx(expected)
        assert (state, rest[0], rest[1].item()) == ((), {}, g[2])
    assert method.needs.memory.size == 3
