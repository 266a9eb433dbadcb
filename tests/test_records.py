"""The results store: nothing is lost, doubled or overwritten, whatever happens to the process or the files."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import ROOT
from filelock import Timeout

from cl_repro import records
from cl_repro.errors import UserError
from cl_repro.records import COLUMNS, RUNS, Store

Rows = dict[str, list[dict]]


def rows(*names: str) -> Rows:
    """Made rows of some runs: two accuracies and one importance each."""
    return {
        "runs.csv": [dict.fromkeys(RUNS, "x") | {"run_id": name, "hardware": "a, b", "arm": 'q"q'} for name in names],
        "accuracy.csv": [
            {"run_id": name, "split": "test", "after_task": 0, "task": k, "accuracy": 0.5}
            for name in names
            for k in (0, 1)
        ],
        "importance.csv": [{"run_id": name, "after_task": 0, "trace": 1e-9} for name in names],
    }


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in COLUMNS}


def run_ids(folder: Path) -> list[str]:
    return [row["run_id"] for row in Store(folder).read()["runs.csv"]]


def test_what_is_put_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    store.put("one", rows("a", "b"))
    assert store.finished() == {"a", "b"}  # before the merge, too
    store.merge()
    store.put("two", rows("c"))
    store.merge()
    found = Store(tmp_path / "study").read()
    assert [row["run_id"] for row in found["runs.csv"]] == ["a", "b", "c"]
    assert found["runs.csv"][0]["hardware"] == "a, b"
    assert found["runs.csv"][0]["arm"] == 'q"q'
    assert len(found["accuracy.csv"]) == 6
    assert not list(store.spool.glob("*.json"))


def test_a_cell_computed_twice_is_one_row(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("one", rows("a", "b"))
    store.put("other", rows("b", "c"))
    store.merge()
    store.put("again", rows("a"))
    store.merge()
    assert run_ids(tmp_path) == ["a", "b", "c"]
    assert len(store.read()["accuracy.csv"]) == 6


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_any_rename_of_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, before: bool
) -> None:
    store = Store(tmp_path)
    store.put("one", rows("a"))
    store.merge()
    undisturbed = Store(tmp_path.parent / "undisturbed")
    for at in (undisturbed, store):
        if at is undisturbed:
            at.put("one", rows("a"))
            at.merge()
        at.put("two", rows("b"))
    undisturbed.merge()
    replace, count = os.replace, iter(range(100))

    def dying(source: Path, target: Path) -> None:
        now = next(count)
        if now == moment and before:
            raise Killed
        replace(source, target)
        if now == moment:
            raise Killed

    monkeypatch.setattr(records.os, "replace", dying)
    try:
        store.merge()
    except Killed:
        assert moment < 1 + len(COLUMNS)  # provenance and the tables
    else:
        assert moment >= 1 + len(COLUMNS)
    monkeypatch.setattr(records.os, "replace", replace)
    again = Store(tmp_path)
    assert again.finished() == {"a", "b"}
    again.merge()
    assert content(tmp_path) == content(tmp_path.parent / "undisturbed")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.9").replace(b"x", b"y"))


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"a,b\n")


@pytest.mark.parametrize("damage", [truncate, edit, append, Path.unlink])
@pytest.mark.parametrize("name", ["runs.csv", "accuracy.csv"])
def test_a_damaged_table_is_named_and_kept(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    store = Store(tmp_path)
    store.put("one", rows("a"))
    store.merge()
    damage(tmp_path / name)
    left = {path: path.read_bytes() for path in tmp_path.glob("[a-z]*.*")}
    with pytest.raises(UserError, match=name) as error:
        Store(tmp_path)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.glob("[a-z]*.*")} == left


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("one", rows("a"))
    store.merge()
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    with pytest.raises(UserError, match="written with schema version 99, this code has 1"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_broken_provenance_is_refused(tmp_path: Path, text: str) -> None:
    Store(tmp_path)
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(UserError, match="provenance"):
        Store(tmp_path)


def test_a_half_written_spool_file_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def killed(_: int) -> None:
        raise Killed

    monkeypatch.setattr(records.os, "fsync", killed)
    with pytest.raises(Killed):
        store.put("one", rows("a"))
    assert store.finished() == set()


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        store.put("one", rows("a"))
    assert not list(store.spool.glob("*one*"))


def test_chunk_locks_exclude_and_are_free_after_their_holder(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    with store.chunk_lock("one"), pytest.raises(Timeout):
        other.chunk_lock("one").acquire(timeout=0)
    with other.chunk_lock("one").acquire(timeout=0):
        assert True


def test_files_that_were_replaced_in_vain_twice_are_still_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between provenance.json and the file, twice: what lies there is what was written last."""
    store = Store(tmp_path / "own")
    store.create()
    store.replace({"a.csv": b"1\n"})
    with monkeypatch.context() as killed:
        write = records.write_atomically

        def until_the_file(path: Path, data: bytes) -> None:
            if path.name == "a.csv":
                raise KeyboardInterrupt
            write(path, data)

        killed.setattr(records, "write_atomically", until_the_file)
        for data in (b"2\n", b"3\n"):
            with pytest.raises(KeyboardInterrupt):
                store.replace({"a.csv": data})
            assert store.unedited(["a.csv"]) == {"a.csv": b"1\n"}
    store.replace({"a.csv": b"4\n"})
    assert store.unedited(["a.csv", "b.csv"]) == {"a.csv": b"4\n"}
    (store.folder / "a.csv").write_bytes(b"5\n")
    with pytest.raises(UserError, match=r"a\.csv: edited since the run wrote it"):
        store.unedited(["a.csv"])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data.replace(b"\n", b"\r\n"), r"its line endings were converted .* core\.autocrlf"),
        (lambda data: b"\xef\xbb\xbf" + data, r"edited since .*: it begins with a byte order mark \(BOM\)"),
        (lambda data: data.replace(b",", b";"), "edited since .*: its fields are separated by semicolons"),
        (lambda data: data[:-3], "edited since .*: cut short"),
    ],
)
def test_what_other_programs_do_to_a_csv_is_told(spoil: Callable[[bytes], bytes], says: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("one", rows("a"))
    store.merge()
    path = tmp_path / "runs.csv"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=f"runs.csv: {says}"):
        Store(tmp_path)


def test_git_converts_no_line_endings(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    there = tmp_path / "there"
    there.mkdir()
    shutil.copy(ROOT / ".gitattributes", there)
    for suffix in ("csv", "json", "yaml", "md", "tex", "svg", "npz"):
        (there / f"a.{suffix}").write_bytes(b"1,2\n3,4\n")
    git("init", "-q", "there")
    git("-C", "there", "add", ".")
    git("-C", "there", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "res: made up")
    git("clone", "-q", "-c", "core.autocrlf=true", "there", "here")
    assert len(list((tmp_path / "here").glob("a.*"))) == 7
    for path in (tmp_path / "here").glob("a.*"):
        assert path.read_bytes() == b"1,2\n3,4\n"
