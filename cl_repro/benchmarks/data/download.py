"""Get data sets from the internet: the only module that downloads, called by `make data` alone."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cl_repro.benchmarks.data.arrays import READERS, load, unknown
from cl_repro.benchmarks.data.files import MissingDataError
from cl_repro.benchmarks.data.torchvision_shim import prepare_torchvision
from cl_repro.common.errors import UserError
from cl_repro.records import check_place


def prepare(names: Iterable[str], data_dir: Path | str) -> None:
    """Make sure that data sets are in a folder: verify what is there, download what is not.

    Nothing that is already there is overwritten. Prints one line per data set.

    Args:
        names: keys of `cl_repro.benchmarks.data.arrays.READERS`.
        data_dir: the folder; made if a download needs it.

    Raises:
        UserError: unknown name, no connection, or files that are there but wrong.
    """
    folder, names = Path(data_dir).expanduser().absolute(), list(names)
    for name in names:
        if name not in READERS:
            raise unknown(name)
    for name in names:
        try:
            load(name, folder)
            print(f"{name}: present, checksum right, nothing to do")
        except MissingDataError:
            check_place(folder)
            print(f"{name}: downloading to {folder}", flush=True)
            _download(name, folder)
            load(name, folder)
            print(f"{name}: downloaded, checksum right")


def _download(name: str, folder: Path) -> None:
    if prepare_torchvision() == "absent":
        raise UserError(
            f"{name}: torchvision, which downloads it, is not installed; run "
            "`pip install torchvision`, or put the files into the folder yourself: "
            f"{folder}"
        )
    try:
        # Imported here: only after the shim, and only where something is downloaded.
        from torchvision import datasets  # noqa: PLC0415

        folder.mkdir(parents=True, exist_ok=True)
        # Beside its destination first: an interrupted download leaves no half file to be read.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as fresh:
            if name == "mnist":
                datasets.MNIST(fresh, download=True)
            else:
                source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
                # Not source(fresh, download=True): that goes on to load the pickles, which executes what they contain.
                datasets.utils.download_and_extract_archive(source.url, fresh, md5=source.tgz_md5)
            _move_missing(Path(fresh), folder)
    except (ImportError, OSError, RuntimeError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{name}: download to {folder} failed ({what}); check the connection and run "
            "`make data` again, or copy the files there"
        ) from error


def _move_missing(source: Path, target: Path) -> None:
    """Move unpacked files from one tree into another, leaving alone what the other already has."""
    for path in sorted(p for p in source.rglob("*") if p.is_file() and p.suffix != ".gz"):
        destination = target / path.relative_to(source)
        if not destination.exists():
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, destination)
