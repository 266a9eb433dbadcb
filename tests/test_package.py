"""What is installed is what is here: a wheel, built from the source distribution, works where there is no checkout."""

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cl_repro import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# imported where a comparison with it or a target of `export` is asked for, and said so
ASKED_FOR = {"backpack", "curvlinops", "laplace", "nngeometry", "wandb", "mlflow", "tensorboard"}
LEFT_OUT = {"results", "data", "build", "dist", "outputs", "multirun"}  # of the checkout; large, or built before


def test_every_package_is_installed() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("cl_repro/**/__init__.py")}
    assert set(listed) == there | {"cl_repro.conf"}


def test_what_is_promised_is_what_is_tested() -> None:
    """The least version of every requirement is the one the tests run with."""
    project = PROJECT["project"]
    listed = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    least = dict(requirement.split(">=") for requirement in listed if not requirement.startswith("cl_repro["))
    assert least == {name: pinned[name] for name in least}


def test_the_lock_of_uv_has_the_tested_versions_of_all_that_is_declared() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    found = {package["name"]: package for package in lock}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    normal = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    assert {name: found[name]["version"] for name in normal} == normal
    assert {str(package["source"]) for package in lock} == {
        str({"registry": "https://pypi.org/simple"}),
        str({"editable": "."}),
    }
    asked = found["cl-repro"]["metadata"]
    project = PROJECT["project"]
    listed = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    assert {(one["name"], one.get("specifier")) for one in asked["requires-dist"]} == {
        (re.sub(r"[-_.]+", "-", name).lower(), f">={least}")
        for name, _, least in (requirement.partition(">=") for requirement in listed if ">=" in requirement)
    } | {("cl-repro", None)}
    assert PROJECT["dependency-groups"]["dev"] == ["cl_repro[dev]"]  # what `uv run pytest` needs


def test_continuous_integration_runs_what_runs_here() -> None:
    [job] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    [command] = [step["run"] for step in job["steps"] if "run" in step]
    assert os.access(ROOT / command, os.X_OK)


def test_the_version_is_written_once_and_has_its_changes() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"\n## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_imported_is_declared() -> None:
    """By name of distribution, all that the package imports from elsewhere; the extras' where they are."""
    project, of_module = PROJECT["project"], packages_distributions()
    extras = [
        requirement
        for extra in ("launchers", "report", "weights")
        for requirement in project["optional-dependencies"][extra]
    ]
    declared = {requirement.split(">=")[0] for requirement in [*project["dependencies"], *extras]}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "cl_repro").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) if node.module}
    modules = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"cl_repro", *ASKED_FOR}
    assert modules
    assert {of_module.get(module, [module])[0].lower() for module in modules} <= declared


class Built(NamedTuple):
    """What is distributed."""

    wheel: Path
    source: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """Source distribution and wheel, the wheel from the source distribution, of a copy without what was built before.

    Where setuptools is new enough here it builds them; else pip fetches one, which takes a package index.
    """
    folder = tmp_path_factory.mktemp("package")
    (folder / "copy").mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder / "copy")
        elif path.name not in LEFT_OUT and path.suffix != ".egg-info" and not path.name.startswith("."):
            shutil.copytree(path, folder / "copy" / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    isolation = [] if setuptools_version() < least_setuptools() else ["--no-isolation"]
    call(sys.executable, "-m", "build", *isolation, "--outdir", folder / "dist", folder / "copy", folder=folder)
    (wheel,), (source,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return Built(wheel, source)


def setuptools_version() -> int:
    """Its first number; 0 if there is none."""
    try:
        return int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return 0


def least_setuptools() -> int:
    (requirement,) = PROJECT["build-system"]["requires"]
    return int(requirement.removeprefix("setuptools>="))


def call(*command: str | Path, folder: Path) -> str:
    """Output of a command that finds no checkout: neither by its folder nor by the environment."""
    ours = {"PYTHONPATH", "PYTHONHOME", "CL_REPRO_DATA"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(pattern: str) -> set[str]:
    """Of the checkout, relative to it."""
    return {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.is_file()}


@pytest.mark.slow
def test_the_wheel_holds_every_module_configuration_and_template_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    configuration = {f"cl_repro/{name}" for name in files("conf/**/*.yaml")}
    assert "cl_repro/report/page.html.jinja" in names and len(configuration) > 100
    assert names == configuration | files("cl_repro/**/*.py") | files("cl_repro/**/*.jinja")


@pytest.mark.slow
def test_the_source_distribution_holds_what_the_wheel_is_built_from(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = files("conf/**/*.yaml") | files("cl_repro/**/*.py") | files("cl_repro/**/*.jinja")
    assert needed | {"pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.mark.slow
def test_the_wheel_runs_a_study_in_an_empty_folder(built: Built, tmp_path: Path) -> None:
    """In an environment of its own, which borrows the packages that it depends on from this one."""
    own, here = tmp_path / "environment", tmp_path / "here"
    here.mkdir()
    venv.create(own, symlinks=True)
    python, program = own / "bin" / "python", own / "bin" / "cl-repro"
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built.wheel, folder=here
    )
    ask = "import {0}; print({0}.__file__)"
    site = Path(call(python, "-c", ask.format("cl_repro"), folder=here)).parent.parent
    assert site.is_relative_to(own)
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "borrowed.pth").write_text("\n".join(borrowed))  # behind its own; what is in their .pth files is not read
    found = call(python, "-c", ask.format("cl_repro.report.page"), folder=here)
    assert Path(found.strip()) == site / "cl_repro" / "report" / "page.py"

    assert "Powered by Hydra" in call(program, "--help", folder=here)
    study = ("study=split_digits_fisher", "scale=smoke", "device=cpu", "workers=1")
    said = call(program, *study, folder=here)
    results = here / "results" / "split_digits_fisher_smoke"
    assert {path.name for path in results.glob("*.csv")} >= {"runs.csv", "accuracy.csv", "importance.csv"}
    with (results / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"} and {row["study"] for row in rows} == {"split_digits_fisher"}
    assert {row["fisher"] for row in rows} >= {"exact", "sample", "empirical", "batched"}
    assert {row["git_sha"] for row in rows} == {f"v{__version__}"}
    assert (here / "results" / "figures" / "split_digits_fisher_smoke.png").is_file()
    assert "EXACT" in said
    assert [path.name for path in here.iterdir()] == ["results"]


@pytest.mark.slow
def test_every_module_can_be_the_first_that_is_imported() -> None:
    """As where a process unpickles a class: no module needs that another one was imported before it."""
    program = """
import importlib, sys
for name in sys.argv[1:]:
    for old in [old for old in sys.modules if old.partition(".")[0] == "cl_repro"]:
        del sys.modules[old]
    importlib.import_module(name)
"""
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "cl_repro").rglob("*.py"))]
    optional = "cl_repro/export/to_"  # they import the tools that they are named after
    names = [".".join(path.parts) for path in paths if not path.as_posix().startswith(optional)]
    subprocess.run([sys.executable, "-c", program, *names], cwd=ROOT, check=True)
