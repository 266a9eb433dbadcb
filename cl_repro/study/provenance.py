"""Where results come from: commit, versions, machine, command."""

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cl_repro import __version__

FOLDERS = ("data_dir", "results_dir")


class Source(NamedTuple):
    """The code that runs."""

    git_sha: str  # where git does not say it, what CL_REPRO_COMMIT says, else the version, as v0.2.0
    dirty: bool  # tracked files outside results/ differ from the commit, or there are new ones of code or configuration


def source() -> Source:
    """The commit of this code: from git, else from $CL_REPRO_COMMIT; else its version, as of a wheel.

    In a checkout of which git says nothing (none is installed, or the folder is another user's) the version alone is
    dirty: nobody knows what differs.
    """
    here = Path(__file__).resolve().parents[1]
    try:
        inside = git(here, "rev-parse", "--show-toplevel")
        if Path(inside) != here.parent:
            raise FileNotFoundError
        sha = git(here, "rev-parse", "HEAD")
        # results/ changes while a study runs
        changed = git(here.parent, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
        new = git(here.parent, "ls-files", "--others", "--exclude-standard", "--", here.name, "conf", "scripts")
        return Source(sha, dirty=bool(changed or new))
    except (OSError, subprocess.CalledProcessError):
        said = os.environ.get("CL_REPRO_COMMIT")
        return Source(said or f"v{__version__}", dirty=not said and (here.parent / ".git").exists())


@cache
def code(*packages: str) -> str:
    """A digest of the Python files of this package and of others, as they are when a process first asks."""
    found = hashlib.sha256()
    for name in sorted({"cl_repro", *(package.partition(".")[0] for package in packages)}):
        for place in places(name):
            inside = sorted(place.rglob("*.py")) if place.is_dir() else [place]
            for path in filter(Path.is_file, inside):  # an editor's links may lead nowhere
                found.update(f"{name}/{path.relative_to(place)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def places(name: str) -> list[Path]:
    """The folders of a package, or the file of a module; none where there is no such thing."""
    try:
        spec = find_spec(name)
    except ValueError:  # the script that was started
        return [Path(str(getattr(sys.modules[name], "__file__", os.devnull)))]
    return [Path(place) for place in spec.submodule_search_locations or [spec.origin or os.devnull]] if spec else []


def git(folder: Path, *arguments: str) -> str:
    """Output of a git command."""
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def command(overrides: Sequence[str], program: str = "-m cl_repro") -> str:
    """The command line of one job, as one would type it (a launcher may start its process in another way).

    Without the folders of this machine, which change no result.
    """
    named = [text for text in overrides if text.lstrip("+").partition("=")[0] not in FOLDERS]
    return shlex.join(["python", *shlex.split(program), *named])
