"""What `make reproduce` computes, and what split digits can show of the study."""

import os
import subprocess
import sys
from pathlib import Path

import cli
import pytest
from curves_of import curves, rises

from cl_repro.analysis.data.read import read_further
from cl_repro.analysis.data.study import open_study


@pytest.mark.slow
def test_digits_show_what_digits_can_show(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "cl_repro", "study=split_digits_fisher"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(cli.ROOT)},
        check=True,
    )
    found = curves("split_digits_fisher", tmp_path / "results")
    assert found.accuracy.shape == (5, 10, 14)
    best = found.accuracy.mean(1).max(1)
    assert (best - found.none.mean() >= 5).all()
    at = rises(found)
    assert at["empirical"] - at["exact"] >= 0.8
    assert at["batched"] - at["empirical"] >= 0.8
    study = open_study("split_digits_fisher", tmp_path / "results")
    first = read_further(study.folder, "importance.csv").query("after_task == 0").merge(study.runs, on="run_id")
    trace = first.pivot_table(index="seed", columns="fisher", values="trace")
    assert (trace["exact"] > trace["empirical"]).all()
    assert (trace["empirical"] > trace["batched"]).all()
