"""What a record says of where results come from."""

import shutil
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
