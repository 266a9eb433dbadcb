"""What a long command says of itself where there is no terminal."""

import itertools

import pytest

from cl_repro.common.progress import progress_bar


def test_a_line_every_30_seconds_also_where_nothing_gets_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 5.0)  # every look at it takes 5 seconds
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    with progress_bar(desc="0/3 replicas", total=100) as bar:
        for step in range(60):
            bar.update(step < 20)
        seconds = next(clock)
    lines = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("0/3 replicas: ") and "\r" not in line for line in lines)
    assert seconds / 60 < len(lines) <= seconds / 30 + 1
    assert [line.count("20/100") for line in lines[-3:]] == [1, 1, 1]


def test_what_is_over_sooner_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(desc="0/3 replicas", total=3) as bar:
        bar.update(3)
        bar.set_description("3/3 replicas")
    assert capsys.readouterr().err == ""
