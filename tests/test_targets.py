"""What a `_target_` may name: code of this package, of torch.optim, and of packages that the command line allows."""

import re
import sys
from pathlib import Path

import cli
import pytest

from cl_repro.common.errors import UserError
from cl_repro.study import study
from cl_repro.study.config import CONF, check
from cl_repro.study.factories import FACTORIES, build, find, targets, within

REFUSED = [
    ("method", "os.system"),
    ("method", "posix.system"),
    ("method", "builtins.exec"),
    ("method", "subprocess.Popen"),
    ("method", "subprocess:Popen"),
    ("method", "cl_repro_evil.factory"),
    ("method", "cl_repro.study.provenance.os.system"),
    ("method", "cl_repro.study.provenance.subprocess.run"),
    ("method", "cl_repro.study.provenance:os.system"),
    ("method", "cl_repro.study.worker.torch.load"),
    ("optim", "torch.optim.adam.torch.load"),
    ("optim", "torch.load"),
    ("optim", "torch.optimal"),
    ("fisher", "importlib.import_module"),
]


@pytest.mark.parametrize(("group", "target"), REFUSED)
def test_what_is_defined_elsewhere_is_refused_and_not_run(
    group: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (arm,) = cli.arms()
    arm[group] |= {"_target_": target, "command": "touch touched"}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^{group}\._target_={re.escape(target)}: must be [^\n]*$"):
        check(arm)
        build(group, arm[group])
    assert not [*tmp_path.iterdir()]


def test_the_command_says_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    typed = ["method._target_=cl_repro.study.provenance.os.system", "+method.command=touch touched"]
    assert cli.run(monkeypatch, tmp_path, *typed) == 2
    assert capfd.readouterr().err == f"error: {typed[0]}: must be defined in cl_repro or torch.optim, is of posix\n"
    assert not [*tmp_path.iterdir()]


def test_nothing_is_imported_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A module is code that runs when it is imported: status, plan and the command refuse it by its name."""
    (tmp_path / "evil.py").write_text("open('touched', 'w')\ndef factory(**_): open('touched', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for command in ([], ["plan"], ["status"]):
        assert cli.run(monkeypatch, tmp_path, *command, "model._target_=evil.factory") == 2
        assert "model._target_=evil.factory: must be the dotted path of a factory in cl_repro" in capfd.readouterr().err
    assert "evil" not in sys.modules
    assert [path.name for path in tmp_path.iterdir()] == ["evil.py"]


def test_a_node_in_a_node_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, wrong in (("method.memory", "os.system"), ("method.memory.more", "cl_repro.study.provenance.os.system")):
        (arm,) = cli.arms("method=replay")
        node = arm["method"]["memory"]
        if key.endswith("more"):
            node["more"] = {"name": "more", "_target_": wrong, "command": "touch touched"}
        else:
            node["_target_"] = wrong
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=f"{key}._target_={wrong}: must be"):
            check(arm)
            build("method", arm["method"])
        assert not [*tmp_path.iterdir()]


def own_package(folder: Path) -> None:
    """A method of one's own, and one that is not defined where it is named."""
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").write_text(
        "import os\nfrom cl_repro.methods.baselines import finetune\ndef mine():\n    return finetune()\n"
    )


@pytest.mark.parametrize("target", ["my_package.mine", "my_package.finetune"])
def test_the_command_line_allows_a_package(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only that: what it has from elsewhere is not its own."""
    own_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    allowed = "allow_targets=[my_package]"
    (arm,) = cli.arms("method=finetune", f"method._target_={target}", allowed)
    check(arm)
    build("method", arm["method"])
    with pytest.raises(UserError, match=r"method\._target_=my_package\.os\.system: must be defined in cl_repro or "):
        find("method", "my_package.os.system")
    for other in ("my_package2.mine", "my_packag.mine"):
        with pytest.raises(
            UserError, match=f"_target_={other}: must be the dotted path of a factory in .* my_package;"
        ):
            check(arm | {"method": arm["method"] | {"_target_": other}})
    (without,) = cli.arms("method=finetune")
    with_it = without | {"allow_targets": ["my_package"]}
    assert study.grid.make_arm(with_it).config_id == study.grid.make_arm(without).config_id
    assert study.public(with_it) == study.public(without)


EVIL = "# @package _global_\nmethod: {_target_: evil.factory}\n"
PLANTED = {
    "plainly": "allow_targets: [evil]\n" + EVIL.partition("\n")[2],
    "as an override": EVIL.partition("\n")[2] + "hydra: {overrides: {task: ['allow_targets=[evil]']}}\n",
    "in a sweep": EVIL.partition("\n")[2] + "hydra: {sweeper: {params: {allow_targets: '[evil]'}}}\n",
    "in an arm": "arms: [{method: finetune, +allow_targets: [evil], method._target_: evil.factory}]\n",
    "in an arm, by an override": "arms: [{method: finetune, method._target_: evil.factory}]\n"
    "hydra: {overrides: {task: ['allow_targets=[evil]']}}\n",
}


@pytest.mark.parametrize("how", PLANTED)
def test_no_file_can_allow_a_package(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.py").write_text("open('touched', 'w')\ndef factory(**_): open('touched', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs" / "study").mkdir(parents=True)
    (tmp_path / "theirs" / "study" / "nice.yaml").write_text("# @package _global_\nname: nice\n" + PLANTED[how])
    multirun = ["-m"] if how == "in a sweep" else []
    assert cli.run(monkeypatch, tmp_path, *multirun, "--config-dir", "theirs", "study=nice") == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and ("allow_targets" in error)
    assert "evil" not in sys.modules
    assert not (tmp_path / "touched").exists()


def test_every_target_of_ours_is_defined_in_these_packages() -> None:
    for path in CONF.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if line.strip().startswith("_target_:") and "launcher" not in str(path):
                assert within(line.split(":", 1)[1].split("#")[0].strip(), FACTORIES)


def test_targets_are_found_wherever_they_are() -> None:
    node = {"a": {"_target_": "x", "b": [{"_target_": "y"}, 1]}, "_target_": 3}
    assert [*targets(node)] == [("a._target_", "x"), ("a.b.0._target_", "y"), ("_target_", 3)]
