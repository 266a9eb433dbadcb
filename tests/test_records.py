"""The results store: nothing is lost, doubled or overwritten, whatever happens to the process or the files."""

import json
import os
import platform
import re
import shutil
import subprocess
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import ROOT
from filelock import Timeout
from hypothesis import given
from hypothesis import strategies as st
from made_results import any_row

from cl_repro.analysis.data.read import read_further, read_runs, rows_of
from cl_repro.common.errors import UserError
from cl_repro.records import Folder, Store, files, folder, from_csv, to_csv
from cl_repro.records import store as store_module
from cl_repro.records.schema import GROUPS, STUDY
from cl_repro.records.seen import Seen

Rows = dict[str, list[dict]]


def rows(*names: str) -> Rows:
    """Made rows of some runs: two accuracies and one importance each."""
    return {
        "runs.csv": [any_row(name, hardware="a, b", arm='q"q', status="ok") for name in names],
        "accuracy.csv": [
            {"run_id": name, "split": "test", "after_task": 0, "task": k, "accuracy": 0.5}
            for name in names
            for k in (0, 1)
        ],
        "importance.csv": [{"run_id": name, "after_task": 0, "trace": 1e-9} for name in names],
    }


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in STUDY}


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


class Death:
    """Comes at the n-th change of a file: before a rename or after it, or in the middle of what is appended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, moment: int, when: str) -> None:
        self.left, self.when = moment, when
        replace, append = os.replace, store_module.append
        monkeypatch.setattr(files.os, "replace", lambda *given: self.at(replace, replace, *given))
        monkeypatch.setattr(store_module, "append", lambda *given: self.at(append, self.half(append), *given))

    @staticmethod
    def half(append: Callable) -> Callable:
        """What a kill leaves of an append: the beginning."""
        return lambda path, size, data: append(path, size, data[: len(data) // 2])

    def at(self, whole: Callable, part: Callable, *given: object) -> None:
        self.left -= 1
        if self.left == -1 and self.when == "before":
            raise Killed
        (part if self.left == -1 and self.when == "inside" else whole)(*given)
        if self.left == -1:
            raise Killed


STEPS = 2 + len(STUDY)  # provenance.json, the tables, provenance.json


@pytest.mark.parametrize("moment", range(STEPS + 1))
@pytest.mark.parametrize("when", ["before", "inside", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_killed_at_any_step_of_a_merge(tmp_path: Path, first: bool, when: str, moment: int) -> None:
    undisturbed, store = Store(tmp_path / "undisturbed"), Store(tmp_path / "killed")
    for at in (undisturbed, store):
        if not first:
            at.put("one", rows("a"))
            at.merge()
        at.put("two", rows("b"))
    undisturbed.merge()
    with pytest.MonkeyPatch.context() as patched:
        Death(patched, moment, when)
        if moment < STEPS:
            with pytest.raises(Killed):
                store.merge()
        else:
            store.merge()
    again = Store(store.folder)
    assert again.finished() == undisturbed.finished()
    merged = (moment, when) in ((STEPS - 1, "after"), (STEPS - 1, "inside")) or moment == STEPS
    assert set(again.runs) == undisturbed.finished() - (set() if merged else {"b"})  # all of a merge counts, or nothing
    again.merge()
    assert content(store.folder) == content(undisturbed.folder)
    assert store.provenance() == undisturbed.provenance()
    assert Store(store.folder).read() == undisturbed.read()


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_tables_are_of_the_rows_that_count(tmp_path: Path, first: bool) -> None:
    store = Store(tmp_path)
    if not first:
        store.put("one", rows("a"))
        store.merge()
    store.put("two", rows("b"))
    with pytest.MonkeyPatch.context() as patched:
        Death(patched, STEPS - 2, "inside")  # of runs.csv
        with pytest.raises(Killed):
            store.merge()
    if first:
        with pytest.raises(UserError, match=r"no runs\.csv in .*: run the study first"):
            read_runs(tmp_path)
    else:
        assert list(read_runs(tmp_path)["run_id"]) == list(read_further(tmp_path, "importance.csv")["run_id"]) == ["a"]


def test_a_kill_during_a_merge_hides_no_edit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("one", rows("a"))
    store.merge()
    store.put("two", rows("b"))
    with pytest.MonkeyPatch.context() as patched:
        Death(patched, 3, "inside")
        with pytest.raises(Killed):
            store.merge()
    edit(tmp_path / "accuracy.csv")
    with pytest.raises(UserError, match=r"accuracy\.csv: edited"):
        Store(tmp_path)


def test_a_merge_of_an_earlier_version_that_was_killed_is_completed(tmp_path: Path) -> None:
    """It replaced the tables one after the other, runs.csv last."""
    whole = Store(tmp_path / "whole")
    for name in ("a", "b"):
        whole.put(name, rows(name))
        whole.merge()
    for ahead in range(1, len(STUDY)):
        store = Store(tmp_path / str(ahead))
        store.put("a", rows("a"))
        store.merge()
        store.put("b", rows("b"))
        known = store.provenance()
        known["previous"], known["files"] = known["files"], whole.provenance()["files"]
        store.write_provenance(known)
        for name in list(STUDY)[:ahead]:
            shutil.copy(whole.folder / name, store.folder)
        again = Store(store.folder)
        assert again.finished() == {"a", "b"}
        again.merge()
        assert content(again.folder) == content(whole.folder)
        assert Store(again.folder).read() == whole.read()


def test_a_merge_reads_and_writes_its_own_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    store.put("many", rows(*map(str, range(200))))
    store.merge()
    other.look()
    moved: list[int] = []
    up_to, append = Seen.up_to, store_module.append

    def read(self: Seen, path: Path, size: int) -> Seen:
        moved.append(size - self.size)
        return up_to(self, path, size)

    def write(path: Path, size: int, data: bytes) -> None:
        moved.append(len(data))
        append(path, size, data)

    monkeypatch.setattr(Seen, "up_to", read)
    monkeypatch.setattr(store_module, "append", write)
    for one in (store, other):  # each has to learn what the other has written
        one.put("more", rows(f"of {id(one)}"))
        one.merge()
    assert 0 < sum(moved) < 4000 < len((tmp_path / "runs.csv").read_bytes())
    assert len(run_ids(tmp_path)) == 202


def test_a_folder_that_is_exchanged_while_it_is_open_is_read_anew(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    for at, names in ((store, ["a", "b"]), (other, ["c", "d", "e"])):
        at.put("one", rows(*names))
        at.merge()
    for path in other.folder.glob("[a-z]*.*"):
        shutil.copy(path, store.folder)
    assert store.finished() == {"c", "d", "e"}
    store.put("two", rows("a"))
    store.merge()
    assert run_ids(store.folder) == ["c", "d", "e", "a"]


def test_merges_take_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, now, merged = Store(tmp_path), [0.0], []

    def merge() -> None:
        merged.append(now[0])
        now[0] += 0.1

    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(store, "merge", merge)
    for _ in range(3000):
        store.merge_in_time()
        now[0] += 0.01
    assert merged == pytest.approx([0.0, 10.0, 20.0, 30.0], abs=0.03)


def test_who_waits_for_a_lock_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    store, other = Store(tmp_path), Store(tmp_path)
    store.put("one", rows("a"))
    with other.lock:
        waiting = threading.Thread(target=store.merge)
        waiting.start()
        waiting.join(0.1)
        assert capsys.readouterr().err == ""
        waiting.join(0.6)
        assert waiting.is_alive()
        told = capsys.readouterr().err
    waiting.join()
    held = rf"held since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ by process {os.getpid()} of {platform.node()}"
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/\.spool/store\.lock: waiting, {held}\n", told)
    assert run_ids(tmp_path) == ["a"]
    assert files.holder(Path(store.lock.lock_file)) == ""


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.9"))


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

    monkeypatch.setattr(files.os, "fsync", killed)
    with pytest.raises(Killed):
        store.put("one", rows("a"))
    assert store.finished() == set()


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
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
    store = Folder(tmp_path / "own")
    store.create()
    store.replace({"a.csv": b"1\n"})
    with monkeypatch.context() as killed:
        write = folder.write_atomically

        def until_the_file(path: Path, data: bytes) -> None:
            if path.name == "a.csv":
                raise KeyboardInterrupt
            write(path, data)

        killed.setattr(folder, "write_atomically", until_the_file)
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


# --- what is spooled --------------------------------------------------------------------------------------------------


def spoiled(change: Callable[[Rows], object]) -> str:
    """What is spooled of one run, changed."""
    found = {name: [] for name in STUDY} | rows("a")
    change(found)
    return json.dumps(found)


SPOILED = {
    "half": spoiled(lambda found: None)[:200],
    "no object": "5",
    "no file": "{}",
    "no rows": json.dumps(dict.fromkeys(STUDY, 5)),
    "no row": json.dumps({name: [5] for name in STUDY}),
    "other files": spoiled(lambda found: found.update(other=[])),
    "half a row": spoiled(lambda found: found["accuracy.csv"][0].pop("accuracy")),
    "a column too many": spoiled(lambda found: found["accuracy.csv"][0].update(other=1)),
    "no run_id": spoiled(lambda found: found["runs.csv"][0].update(run_id="")),
    "of no run": spoiled(lambda found: found["accuracy.csv"][0].update(run_id="b")),
    "twice": spoiled(lambda found: found["runs.csv"].append(found["runs.csv"][0])),
    "no number": spoiled(lambda found: found["accuracy.csv"][0].update(accuracy="half")),
    "no integer": spoiled(lambda found: found["runs.csv"][0].update(seed="1.5")),
    "empty integer": spoiled(lambda found: found["runs.csv"][0].update(seed=None)),
    "no boolean": spoiled(lambda found: found["runs.csv"][0].update(dirty=0)),
    "carriage return": spoiled(lambda found: found["runs.csv"][0].update(arm="a\rb")),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_spool_file_that_is_not_as_the_schema_says_is_set_aside(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.put("good", rows("b"))
    path = store.spool / "bad.json"
    path.write_text(SPOILED[kind])
    assert store.missing(["a", "b"]) == {"a"}
    store.merge()
    assert run_ids(tmp_path) == ["b"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: ")
    assert line.endswith("; set aside as bad.set_aside, and its runs are computed again")
    assert path.with_suffix(".set_aside").read_text() == SPOILED[kind]
    assert not path.exists()
    store.put("bad", rows("a"))
    store.merge()
    assert run_ids(tmp_path) == ["b", "a"]


def test_rows_that_the_schema_does_not_allow_are_not_spooled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("accuracy.csv", "runs.csv"):
        bad = rows("a")
        del bad[name][0]["accuracy"]
        with pytest.raises(ValueError, match=f"row 0 of {name}: column 'accuracy' is missing"):
            store.put("one", bad)
    assert not store.spool.exists()


TEXTS = st.text(st.characters(exclude_categories=[]))  # halves of surrogate pairs too
CELLS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS


@given(st.lists(st.fixed_dictionaries({"a": CELLS, "b": TEXTS}), max_size=4), st.booleans())
def test_whatever_the_writer_accepts_comes_back(table: list[dict], header: bool) -> None:
    told = {str(value) for row in table for value in row.values()}
    try:
        data = to_csv(("a", "b"), table, header)
    except UserError:
        assert any(unicodedata.category(c) in ("Cc", "Cs") for text in told for c in text)
        return
    expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table]
    assert list(from_csv(Path("x.csv"), ("a", "b"), data, header)) == expected
    if header and table:  # the other reader, of figures and tables
        assert rows_of(Path("x.csv"), data).to_dict("records") == expected


def test_every_committed_csv_has_the_columns_of_the_schema() -> None:
    known = {file: columns for files_ in GROUPS.values() for file, columns in files_.items()}
    paths = list((ROOT / "results").rglob("*.csv"))
    assert len(paths) > 100
    for path in paths:
        name = "<group>.csv" if path.parent.name == "bench" else path.name
        assert path.read_text().partition("\n")[0] == ",".join(known[name]), path
