"""Getting data sets, without a connection, and the shim that lets torchvision be imported."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import types
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import processes
import pytest
from made_cifar import SOURCES, shuffled, small_cifar, write_pickles
from made_data import assert_same, one_line, small_mnist, write_npz, write_raw

from cl_repro.benchmarks.data import arrays as data
from cl_repro.benchmarks.data import download, mnist, torchvision_shim
from cl_repro.common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def made(monkeypatch):
    return small_mnist(monkeypatch)


@pytest.fixture
def server(made, monkeypatch):
    """A torchvision whose MNIST writes the made files, or fails: `server.fails = error`."""
    state = types.SimpleNamespace(calls=0, fails=None)

    def fake_mnist(root, download):
        state.calls += 1
        write_raw(Path(root), made)
        (Path(root) / mnist.RAW / "train-images-idx3-ubyte.gz").write_bytes(b"packed")
        if state.fails:
            raise state.fails
        assert download

    datasets = types.SimpleNamespace(MNIST=fake_mnist)
    module = types.ModuleType("torchvision")
    module.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setattr(download, "prepare_torchvision", lambda: "native")
    return state


def test_prepare_downloads_what_is_missing_and_then_does_nothing(server, made, tmp_path, capsys):
    folder = tmp_path / "new" / "data"
    download.prepare(["mnist"], folder)
    assert_same(data.load("mnist", folder), made)
    assert {p.name for p in (folder / mnist.RAW).iterdir()} == {n for n, _ in mnist.PARTS.values()}
    assert [p.name for p in folder.iterdir()] == ["MNIST"], "no temporary folder left"
    assert "mnist: downloaded, checksum right" in capsys.readouterr().out
    download.prepare(["mnist", "digits"], folder)
    assert capsys.readouterr().out.splitlines() == [
        "mnist: present, checksum right, nothing to do",
        "digits: present, checksum right, nothing to do",
    ]
    assert server.calls == 1


def test_prepare_keeps_the_raw_files_that_are_there(server, made, tmp_path):
    raw = write_raw(tmp_path, made)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    kept = raw / "train-labels-idx1-ubyte"
    inode = kept.stat().st_ino
    download.prepare(["mnist"], tmp_path)
    assert kept.stat().st_ino == inode
    assert_same(data.load("mnist", tmp_path), made)


def test_prepare_does_not_touch_wrong_data(server, made, tmp_path):
    path = write_npz(tmp_path, made, y_test=made.y_test * 0)
    before = path.read_bytes()
    with pytest.raises(UserError, match="not the real mnist"):
        download.prepare(["mnist"], tmp_path)
    assert path.read_bytes() == before
    assert server.calls == 0


@pytest.mark.parametrize("error", [RuntimeError("Error downloading\n  twice"), OSError("no route")])
def test_failed_download_is_one_line_and_leaves_no_half_files(server, tmp_path, error):
    server.fails = error
    with pytest.raises(UserError) as raised:
        download.prepare(["mnist"], tmp_path)
    what = " ".join(str(error).split())
    assert f"mnist: download to {tmp_path} failed ({what})" in one_line(raised)
    assert list(tmp_path.iterdir()) == []


def test_downloaded_data_are_verified(server, tmp_path, monkeypatch):
    monkeypatch.setitem(data.CHECKSUMS, "mnist", "0" * 64)
    with pytest.raises(UserError, match=f"not the real mnist: checksum .*, expected {'0' * 64}"):
        download.prepare(["mnist"], tmp_path)


def test_without_torchvision_the_command_that_helps_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "prepare_torchvision", lambda: "absent")
    with pytest.raises(UserError) as error:
        download.prepare(["mnist"], tmp_path)
    assert "torchvision, which downloads it, is not installed" in one_line(error)
    assert str(tmp_path) in one_line(error)


# CIFAR: with the real torchvision, from a server on this machine


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """Function of a data set: makes a small one and the archive of its original files; returns both."""

    def make(name):
        made = small_cifar(monkeypatch, name)
        folder = write_pickles(tmp_path / "made", shuffled(made, seed=7), name)
        (folder / "readme.html").write_text("of the original")
        packed = tmp_path / "server" / f"{name}.tar.gz"
        packed.parent.mkdir()
        with tarfile.open(packed, "w:gz") as tar:
            tar.add(folder, folder.name)
        return made, packed

    return make


@pytest.fixture
def http(tmp_path):
    """The address of a server of the folder `server`."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "server")
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


PREPARE = """
import pickle, sys
from cl_repro.benchmarks.data import arrays, download
from cl_repro.benchmarks.data.torchvision_shim import prepare_torchvision
name, checksum, folder, url, md5 = sys.argv[1:]
first = prepare_torchvision()
assert prepare_torchvision() == first in ("native", "shimmed")
from torchvision import datasets
assert callable(datasets.MNIST)
source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
source.url = url  # of these tests, but not yet the sum
arrays.CHECKSUMS[name] = checksum
pickle.load = None  # what torchvision's data sets call
for expected in (source.tgz_md5, md5, md5):
    source.tgz_md5 = expected
    try:
        download.prepare([name], folder)
    except arrays.UserError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", pytest.param("cifar100", marks=pytest.mark.slow)])
def test_prepare_downloads_cifar_without_executing_it(archive, http, tmp_path, monkeypatch, name):
    """An archive with another sum than torchvision's is refused; with the right one it is unpacked, once.

    And torchvision can be imported, whatever torch it was built for.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed; only `make data` needs it")
    made, packed = archive(name)
    folder, md5 = tmp_path / "data", hashlib.md5(packed.read_bytes()).hexdigest()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    done = run_python("-c", PREPARE, name, data.CHECKSUMS[name], str(folder), f"{http}/{packed.name}", md5)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[1].startswith(f"{name}: download to {folder} failed (File not found or corrupted.)")
    assert said[0] == said[2] == f"{name}: downloading to {folder}"
    assert said[3:] == [f"{name}: downloaded, checksum right", f"{name}: present, checksum right, nothing to do"]
    assert [path.name for path in folder.iterdir()] == [SOURCES[name].folder], "neither archive nor temporary folder"
    assert_same(data.load(name, folder), made)


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_prepare_data_command_loads_without_torchvision_and_torch(tmp_path):
    script = "prepare_data.py"
    shown, fine, wrong = processes.scripts(
        (script, "--help"), (script, "digits", "--data-dir", tmp_path), (script, "mnits")
    )
    assert shown[0] == 0
    assert "--data-dir" in shown[1]
    assert fine == (0, "digits: present, checksum right, nothing to do\n", "")
    says = "error: dataset=mnits: unknown data set; allowed: digits, mnist, cifar10, cifar100\n"
    assert wrong == (2, "", says)


# torchvision beside a torch it was not built for


SHIM_ON_A_FAKE = """
import sys, torch
from pathlib import Path
from cl_repro.benchmarks.data import torchvision_shim as shim
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
print(shim.prepare_torchvision(), shim.prepare_torchvision())
boxes, scores = torch.zeros(1, 4), torch.zeros(1)
try:
    torch.ops.torchvision.nms(boxes, scores, 0.5)
except NotImplementedError as error:
    print("Could not run" in str(error))
"""


def test_shim_defines_the_operators_where_the_library_does_not_load(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_C.so").write_bytes(b"not a library")
    done = run_python("-c", SHIM_ON_A_FAKE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["shimmed", "shimmed", "True"]


# What a process has once found stays cached: an operator cannot be defined again where another test needs torchvision.
look_again = torchvision_shim.prepare_torchvision.__wrapped__


def test_shim_leaves_a_working_torchvision_alone(tmp_path, monkeypatch):
    (tmp_path / "_C.so").write_bytes(b"")
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torchvision_shim, "_definitions", [])
    loaded = []
    monkeypatch.setattr("torch.ops.load_library", loaded.append)
    assert look_again() == "native"
    assert loaded == [str(tmp_path / "_C.so")]
    assert torchvision_shim._definitions == []


def test_shim_without_torchvision(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert look_again() == "absent"
