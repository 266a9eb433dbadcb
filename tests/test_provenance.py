"""What a record says of where results come from."""

import shutil
import sys
from pathlib import Path

import pytest

from cl_repro import __version__
from cl_repro.study import provenance


def test_a_command_has_no_folders_of_the_machine() -> None:
    given = ["study=a b", "results_dir=/somewhere/else", "+data_dir=here", "seeds=[1,2]"]
    assert provenance.command(given) == "python -m cl_repro 'study=a b' 'seeds=[1,2]'"
    assert provenance.command(given[:2], "scripts/measure.py idea") == "python scripts/measure.py idea 'study=a b'"


def test_without_a_commit_it_is_the_version_or_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a wheel is installed."""
    copied = shutil.copy(provenance.__file__, tmp_path / "provenance.py")
    monkeypatch.setattr(provenance, "__file__", copied)
    monkeypatch.delenv("CL_REPRO_COMMIT", raising=False)
    assert provenance.source() == (f"v{__version__}", False)
    monkeypatch.setenv("CL_REPRO_COMMIT", "abc")
    assert provenance.source() == ("abc", False)


def test_a_checkout_of_which_git_says_nothing_is_no_clean_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No git is installed, or the folder is another user's, as in a container."""
    monkeypatch.setattr(provenance, "__file__", write(tmp_path / "cl_repro" / "study" / "provenance.py"))
    monkeypatch.delenv("CL_REPRO_COMMIT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.source() == (f"v{__version__}", False)
    (tmp_path / ".git").mkdir()
    assert provenance.source() == (f"v{__version__}", True)
    monkeypatch.setenv("CL_REPRO_COMMIT", "abc")
    assert provenance.source() == ("abc", False)


def test_the_code_of_a_run_is_that_of_this_package_and_of_those_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    digest = provenance.code.__wrapped__  # as of a new process
    write(tmp_path / "my_network.py", "WIDTH = 1")
    write(tmp_path / "my_methods" / "deep" / "rates.py", "RATE = 1")
    (tmp_path / "my_methods" / ".#rates.py").symlink_to("an editor's")
    found = {digest(), digest("my_network"), digest("my_network", "my_methods.deep")}
    assert {digest("not_there"), digest("sys")} <= found
    assert len(found) == 3
    write(tmp_path / "my_methods" / "deep" / "rates.py", "RATE = 2")
    assert digest("my_network") in found and digest("my_network", "my_methods.deep") not in found
    write(tmp_path / "my_network.py", "WIDTH = 2")
    assert digest("my_network") not in found
    before, script = digest("__main__"), write(tmp_path / "script.py", "WIDTH = 1")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", script, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert digest("__main__") not in (before, digest())


def test_a_tree_is_dirty_where_code_or_configuration_are_not_those_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a file that is in no commit: an estimator of one's own and its YAML are code, too."""
    monkeypatch.setattr(provenance, "__file__", write(tmp_path / "cl_repro" / "study" / "provenance.py"))
    for name in ("conf/fisher/exact.yaml", "results/study/runs.csv", ".gitignore"):
        write(tmp_path / name, "__pycache__\n")
    for command in (
        ("init", "-q"), ("add", "."), ("-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "-m", "c")
    ):  # fmt: skip
        provenance.git(tmp_path, *command)
    sha = provenance.git(tmp_path, "rev-parse", "HEAD")
    for harmless in ("cl_repro/__pycache__/a.pyc", "results/study/runs.csv", "results/new.csv", "note.txt"):
        write(tmp_path / harmless, "changed")
        assert provenance.source() == (sha, False), harmless
    for new in ("cl_repro/importance/uniform.py", "conf/fisher/uniform.yaml", "conf/fisher/exact.yaml"):
        was = (tmp_path / new).read_text() if (tmp_path / new).exists() else None
        write(tmp_path / new, "changed")
        assert provenance.source() == (sha, True), new
        (tmp_path / new).unlink() if was is None else write(tmp_path / new, was)
        assert provenance.source() == (sha, False)


def write(path: Path, text: str = "") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)
