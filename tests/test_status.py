"""How far a study is, and what it would cost."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cli
import pytest
from made_results import any_row
from rich.console import Console

from cl_repro.common.errors import UserError
from cl_repro.records import Store, checkpoint_file
from cl_repro.study import grid, status
from cl_repro.study.config import CONF

STUDY = ["study=split_digits_fisher", "arms=[{method: finetune},{method: ewc,fisher: exact}]", "seeds=[1,2]"]
GRID = "grid.lambdas=[10,1000]"
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def study(tmp_path: Path) -> tuple[list[dict], list[grid.Cell], Store]:
    """Six cells: of seed 1 finetune and one lambda are done, the other diverged; of seed 2 one failed, one runs."""
    arms = [arm | {"results_dir": str(tmp_path)} for arm in cli.arms(*STUDY, GRID)]
    cells = grid.cells([grid.make_arm(cfg) for cfg in arms])
    store = Store(tmp_path / "split_digits_fisher")
    started = {"command": "c", "started": text(T0), "config_ids": []}
    store.note_invocation(started, {}, {})
    finished = zip(cells[:3], ("ok", "ok", "diverged"), (60, 120, 180), strict=True)
    rows = [any_row(c.run_id, status=s, finished=text(T0 + timedelta(seconds=t))) for c, s, t in finished]
    store.put("one", {"runs.csv": rows, "accuracy.csv": [], "importance.csv": []})
    store.merge()
    store.note_failure("two", [cells[3].run_id], "Traceback")
    return arms, cells, store


def test_every_state_is_told(study: tuple[list[dict], list[grid.Cell], Store]) -> None:
    _, cells, store = study
    with store.chunk_lock("three"), store.running("three", [cells[4].run_id]):
        states = status.progress_of(cells, store).state
    assert [states[c.run_id] for c in cells] == ["done", "done", "diverged", "failed", "running", "missing"]


def test_a_dead_process_is_not_running(study: tuple[list[dict], list[grid.Cell], Store]) -> None:
    _, cells, store = study
    script = (
        "import os, sys; from pathlib import Path; from cl_repro.records import Store\n"
        "store = Store(Path(sys.argv[1])); store.chunk_lock('three').acquire()\n"
        "mark = store.running('three', [sys.argv[2]]); mark.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(store.folder), cells[4].run_id], cwd=cli.ROOT, check=False)
    assert (store.spool / "three.running").exists()
    assert status.progress_of(cells, store).state[cells[4].run_id] == "missing"


def test_a_stopped_chunk_is_told_until_it_is_done(study: tuple[list[dict], list[grid.Cell], Store]) -> None:
    _, cells, store = study
    run_id, checkpoint = cells[4].run_id, checkpoint_file(store.folder, "three")
    with store.chunk_lock("three"), store.running("three", [run_id]):
        checkpoint.write_bytes(b"")
        assert status.progress_of(cells, store).state[run_id] == "running"
    assert status.progress_of(cells, store).state[run_id] == "stopped"
    with store.chunk_lock("three"), store.running("three", [run_id]):
        checkpoint.unlink()
    assert status.progress_of(cells, store).state[run_id] == "missing"
    assert not (store.spool / "three.running").exists()


def test_time_to_go_is_at_the_pace_of_the_last_command(study: tuple[list[dict], list[grid.Cell], Store]) -> None:
    _, cells, store = study
    progress = status.progress_of(cells, store)
    assert progress.elapsed == 180
    assert progress.remaining == 180  # three cells in 180 s, three to go


def test_a_time_that_this_program_has_not_written_is_one_line(
    study: tuple[list[dict], list[grid.Cell], Store],
) -> None:
    _, cells, store = study
    for invocation in ({"started": "yesterday"}, {}):
        store.note_invocation(invocation, {}, {})
        with pytest.raises(UserError, match="a time that this program has not written") as error:
            status.progress_of(cells, store)
        assert "\n" not in str(error.value)


def test_the_grid_is_printed(
    study: tuple[list[dict], list[grid.Cell], Store], capsys: pytest.CaptureFixture[str]
) -> None:
    arms, _, store = study
    status.status(arms, Console(width=60, force_terminal=False))
    shown = capsys.readouterr().out
    assert "ewc-exact" in shown
    assert "seeds 1 to 2" in shown
    assert any(line.startswith(f"{store.folder}: ● 2 done") for line in shown.splitlines()), "however long its path is"


def test_who_holds_the_lock_of_merges_for_long_is_told(
    study: tuple[list[dict], list[grid.Cell], Store], capsys: pytest.CaptureFixture[str]
) -> None:
    arms, _, store = study
    with store.lock:
        status.status(arms)
        assert "held" not in capsys.readouterr().out  # as in any merge
        os.utime(store.lock.lock_file, (0, 0))
        status.status(arms, Console(width=60))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{store.lock.lock_file}: held since 1970-01-01T00:00:00Z by process {os.getpid()} of ")
    status.status(arms)
    assert "held" not in capsys.readouterr().out


def test_what_was_set_aside_is_told_until_it_is_removed(
    study: tuple[list[dict], list[grid.Cell], Store], capsys: pytest.CaptureFixture[str]
) -> None:
    arms, _, store = study
    (store.spool / "four.json").write_text("{")
    store.merge()
    (store.spool / "five.damaged").touch()
    status.status(arms)
    told = [line for line in capsys.readouterr().out.splitlines() if "set aside" in line]
    assert [line.split(":")[0] for line in told] == [
        str(store.spool / name) for name in ("five.damaged", "four.set_aside")
    ]
    for path in store.set_aside():
        path.unlink()
    status.status(arms)
    assert "set aside" not in capsys.readouterr().out


def test_a_study_that_never_ran_is_all_missing(tmp_path: Path) -> None:
    cells = grid.cells([grid.make_arm(cfg) for cfg in cli.arms(*STUDY, GRID)])
    assert set(status.progress_of(cells, Store(tmp_path / "none")).state.values()) == {"missing"}
    assert not (tmp_path / "none").exists()


def test_status_loads_nothing_heavy(tmp_path: Path) -> None:
    """It answers from Hydra and the CSVs alone; what torch or pandas take to load is more than all of that."""
    Store(tmp_path / "results" / "split_mnist_fisher")
    script = (
        "import sys; sys.argv[1:] = ['status', 'study=split_mnist_fisher', 'scale=paper']\n"
        "from cl_repro.__main__ import main; main()\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    env = {"PYTHONPATH": str(cli.ROOT), "PATH": "/usr/bin:/bin"}
    found = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert "2130 missing" in found.stdout


def test_plan_counts_measures_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(monkeypatch, tmp_path, "plan", *STUDY, GRID, "workers=2") == 0
    shown = capsys.readouterr().out
    assert "6 runs in 2 chunks, 0 finished" in shown
    assert "ewc-exact: " in shown
    assert "s a run, in stacks of 4" in shown
    assert "6 runs to compute" in shown
    assert "with 2 processes" in shown
    assert not list(tmp_path.iterdir())


def test_sizes_read_like_sizes() -> None:
    from cl_repro.study.plan import size  # noqa: PLC0415 - torch comes with it

    assert [size(n) for n in (0, 999, 2500, 1.5e9)] == ["0 bytes", "999 bytes", "2.5 kB", "1.5 GB"]


OWN = """\
# @package _global_
name: mine
arms:
  - {method: ewc, label: EWC (ours), iterations: 2}
"""


@pytest.mark.parametrize("command", [[], ["status"], ["plan"]])
def test_a_configuration_of_ones_own_is_found_as_for_a_run(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.undrawn(monkeypatch)
    (tmp_path / "my own, [1]/study").mkdir(parents=True)
    (tmp_path / "my own, [1]/study/mine.yaml").write_text(OWN)
    whole = (CONF / "config.yaml").read_text()
    (tmp_path / "my own, [1]/other.yaml").write_text(whole.replace("lam: 1000.0", "lam: 7.0"))
    options = ["--config-dir", "my own, [1]", "--config-name", "other", "study=mine", "seeds=[1]", "workers=1"]
    assert cli.run(monkeypatch, tmp_path, *command, *options) == 0
    if command:
        out = capfd.readouterr().out
        assert "EWC (ours)" in out
        assert ("     7  " in out) == (command == ["status"])
    else:
        (row,) = Store(tmp_path / "results/mine").read()["runs.csv"]
        assert (row["arm"], row["lambda"]) == ("EWC (ours)", "7.0")


@pytest.mark.parametrize(("method", "choice"), [("ewc", "fisher=batched"), ("replay", "memory@method.memory=ring")])
def test_what_a_method_must_say_to_have_a_fisher_or_a_memory_helps(
    method: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = (CONF / "method" / f"{method}.yaml").read_text().replace("  - /", "  # - /").replace("  - _self_", "  []")
    (tmp_path / "own/method").mkdir(parents=True)
    (tmp_path / "own/method/mine.yaml").write_text(text)
    command = ["status", "--config-dir", "own", "method=mine", choice]
    assert cli.run(monkeypatch, tmp_path, *command) == 2
    _, told, advice = capfd.readouterr().err.rpartition("defaults: ")
    assert told
    (tmp_path / "own/method/mine.yaml").write_text(
        text.replace("defaults:", f"defaults: {advice}#").replace("  []", "")
    )
    assert cli.run(monkeypatch, tmp_path, *command) == 0
