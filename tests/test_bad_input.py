"""Bad input, as a table: kind (key, value, file, folder, pair) x place (config, CLI, data, results).

Every case is one command in a folder with made data, made results and a configuration of the user's own. Whatever it
gets wrong: exit status 2, one line on standard error that names the value and the rule, no traceback, and not a byte
written. What Hydra and argparse refuse themselves keeps their text.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cli
import made_data
import made_results
import numpy as np
import pytest

from cl_repro import runtime
from cl_repro.analysis import settings
from cl_repro.config import CONF
from cl_repro.data.arrays import CHECKSUMS, Arrays, checksum
from cl_repro.errors import UserError
from cl_repro.records import COLUMNS, Store, sha256, to_csv

KINDS = ("key", "value", "file", "folder", "pair")
PLACES = ("config", "cli", "data", "results")
STUDY = "split_mnist_fisher"  # of the made results

Spoil = Callable[[Path], object]  # of the folder in which the command runs


class Case(NamedTuple):
    """One mistake."""

    kind: str
    place: str
    name: str
    command: Sequence[str]  # a script and its arguments, or what follows `python -m cl_repro`
    says: Sequence[str]  # parts of the line: the value, the rule
    spoil: Spoil = lambda work: None
    lines: int | None = 1  # on standard error; None: argparse or Python show more above ours
    slow: bool = False


# --- ways to spoil ---------------------------------------------------------------------------------------------------


def write(path: str, content: str | bytes) -> Spoil:
    """A file with this content, in the place of what was there."""

    def spoil(work: Path) -> None:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def change(path: str, old: str, new: str) -> Spoil:
    """One edit, as in an editor."""

    def spoil(work: Path) -> None:
        text = (work / path).read_text()
        assert old in text
        (work / path).write_text(text.replace(old, new, 1))

    return spoil


def cut(path: str, keep: float = 0.5) -> Spoil:
    """A file that ends too early."""

    def spoil(work: Path) -> None:
        content = (work / path).read_bytes()
        (work / path).write_bytes(content[: int(len(content) * keep)])

    return spoil


def flip(path: str, position: int) -> Spoil:
    """One bit."""

    def spoil(work: Path) -> None:
        content = bytearray((work / path).read_bytes())
        content[position] ^= 1
        (work / path).write_bytes(content)

    return spoil


def remove(path: str) -> Spoil:
    """A file or folder that is not there."""

    def spoil(work: Path) -> None:
        shutil.rmtree(work / path) if (work / path).is_dir() else (work / path).unlink()

    return spoil


def folder_in_the_place_of(path: str) -> Spoil:
    """A folder where a file belongs."""

    def spoil(work: Path) -> None:
        (work / path).unlink(missing_ok=True)
        (work / path).mkdir(parents=True)

    return spoil


def file_in_the_place_of(path: str) -> Spoil:
    """A file where a folder belongs."""

    def spoil(work: Path) -> None:
        if (work / path).is_dir():
            shutil.rmtree(work / path)
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text("in the way")

    return spoil


def unreadable(path: str) -> Spoil:
    """A file that not even root can read: the memory of this process from address 0 on."""

    def spoil(work: Path) -> None:
        if not Path("/proc/self/mem").exists():
            pytest.skip("needs /proc")
        (work / path).unlink()
        (work / path).symlink_to("/proc/self/mem")

    return spoil


def npz(**changed: np.ndarray) -> Spoil:
    """Arrays exchanged in mnist.npz; None leaves one out."""

    def spoil(work: Path) -> None:
        with np.load(work / "data/mnist.npz") as stored:
            arrays = dict(stored) | changed
        np.savez(work / "data/mnist.npz", **{key: value for key, value in arrays.items() if value is not None})

    return spoil


def raw(spoil_raw: Spoil) -> Spoil:
    """MNIST as the original four files instead of mnist.npz, and then spoiled."""

    def spoil(work: Path) -> None:
        with np.load(work / "data/mnist.npz") as stored:
            made_data.write_raw(work / "data", Arrays(**stored))
        (work / "data/mnist.npz").unlink()
        spoil_raw(work)

    return spoil


def rewrite(name: str, old: str, new: str) -> Spoil:
    """An edit by someone who has brought provenance.json up to date."""

    def spoil(work: Path) -> None:
        change(f"results/{STUDY}/{name}", old, new)(work)
        path = work / "results" / STUDY / "provenance.json"
        known = json.loads(path.read_text())
        known["files"][name] = sha256((path.parent / name).read_bytes())
        path.write_text(json.dumps(known))

    return spoil


def provenance(**changed: object) -> Spoil:
    """Keys of provenance.json exchanged; None removes one."""

    def spoil(work: Path) -> None:
        path = work / "results" / STUDY / "provenance.json"
        known = json.loads(path.read_text()) | changed
        path.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))

    return spoil


def spool(content: str) -> Spoil:
    """What a run that was killed leaves, with this in it."""

    def spoil(work: Path) -> None:
        for name, text in {"x.json": content, ".gitignore": "*\n", "store.lock": ""}.items():
            write(f"results/{STUDY}/.spool/{name}", text)(work)

    return spoil


def exchange(name: str) -> Spoil:
    """A table of another study in this one's folder."""
    return lambda work: shutil.copy(work / "results/runs" / name, work / "results" / STUDY / name)


def no_cuda(work: Path) -> None:
    """A machine without a CUDA device, wherever the tests run; `case` undoes it."""
    runtime.cuda_devices = lambda: 0


# --- ways to ask -----------------------------------------------------------------------------------------------------

OWN = ["--config-dir", "own"]
MNIST = ["benchmark=split_mnist", "batch_size=8", "model.hidden=[6]", "data_dir=data"]
OURS = f"name={STUDY}"  # digits into the folder of the made results: refused as soon as it is opened
STATUS = ["status", OURS, "seeds=[1]"]
TABLE = ["table_accuracy.py", STUDY]
PUBLIC = "# @package _global_\nname: mine\n"
FACTORY = "name: mine\n_target_: cl_repro.importance.fisher.exact\n"
LONG = "x" * 300  # longer than a file system allows
SPOOLED = json.dumps({name: [] for name in COLUMNS})


def own(path: str, content: str | bytes) -> Spoil:
    """A file of the user's own, for --config-dir."""
    return write(f"own/{path}.yaml", content)


def analysis(old: str, new: str) -> Spoil:
    """An edit of conf/analysis.yaml."""
    return change("conf/analysis.yaml", old, new)


CONFIG = [
    Case("key", "config", "unknown", [*OWN, "study=mine"], ["Key 'speed' not in 'Schema'"],
         own("study/mine", PUBLIC + "speed: 3\n")),
    Case("key", "config", "argument", [*OWN, "fisher=mine"], ["fisher.m: mine takes no such key; allowed: n, normal"],
         own("fisher/mine", FACTORY + "m: 3\n")),
    Case("key", "config", "argument_left_out", [*OWN, "fisher=mine"], ["fisher.batch_size: mine needs this key"],
         own("fisher/mine", "name: mine\n_target_: cl_repro.importance.batched.batched\n"), slow=True),
    Case("key", "config", "no_target", [*OWN, "fisher=mine"], ["fisher._target_: missing; every file under fisher/"],
         own("fisher/mine", "name: mine\n"), slow=True),
    Case("key", "config", "no_name", [*OWN, "fisher=mine"], ["fisher.name: missing"],
         own("fisher/mine", "_target_: cl_repro.importance.fisher.exact\n"), slow=True),
    Case("key", "config", "no_flag", [*OWN, "method=mine"], ["method.uses_lambda: missing"],
         own("method/mine", "name: mine\n_target_: cl_repro.methods.baselines.finetune\n"), slow=True),
    Case("key", "config", "grid", [*OWN, "grid=mine"], ["grid.lams: unknown key; allowed: lambdas, window"],
         own("grid/mine", "lams: [1]\n"), slow=True),
    Case("key", "config", "package", [*OWN, "study=mine"], ["Key 'study' not in 'Schema'"],
         own("study/mine", "name: mine\n"), slow=True),
    Case("key", "config", "analysis", TABLE, ["conf/analysis.yaml: unknown key 'confidenze' (keys: confidence, "],
         analysis("confidence:", "confidence: 0.9\nconfidenze:")),
    Case("value", "config", "type", [*OWN, "study=mine"], ["Value 'many' of type 'str' could not be converted to Int"],
         own("study/mine", PUBLIC + "batch_size: many\n")),
    Case("value", "config", "range", [*OWN, "study=mine"], ["lambda=-1.0: must be a finite number of at least 0"],
         own("study/mine", PUBLIC + "lam: -1\n")),
    Case("value", "config", "argument_type", [*OWN, "fisher=mine"], ["fisher.n=1.5: must be of type int | None"],
         own("fisher/mine", FACTORY + "n: 1.5\n"), slow=True),
    Case("value", "config", "target", [*OWN, "fisher=mine"], ["fisher._target_=cl_repro.nope.f: must be the dotted"],
         own("fisher/mine", "name: mine\n_target_: cl_repro.nope.f\n"), slow=True),
    Case("value", "config", "target_is_a_module", [*OWN, "fisher=mine"],
         ["fisher._target_=cl_repro.importance.fisher: must be a factory, is a module"],
         own("fisher/mine", "name: mine\n_target_: cl_repro.importance.fisher\n"), slow=True),
    Case("value", "config", "flag", [*OWN, "optim=mine"], ["optim.reset=never: must be true or false"],
         own("optim/mine", "name: mine\n_target_: torch.optim.SGD\nlr: 0.1\nreset: never\n"), slow=True),
    Case("value", "config", "name", [*OWN, "study=mine"], ["name=a/b: names a folder under results_dir, so it must be"],
         own("study/mine", "# @package _global_\nname: a/b\n"), slow=True),
    Case("value", "config", "choice", [*OWN, "study=mine"], ["Could not find 'grid/blok' Available options in 'grid'"],
         own("study/mine", "# @package _global_\ndefaults:\n  - override /grid: blok\nname: mine\n"), slow=True),
    Case("value", "config", "analysis", TABLE, ["confidence = 95.0 must be between 0 and 1"],
         analysis("confidence: 0.95", "confidence: 95")),
    Case("file", "config", "cut", [*OWN, "study=mine"], ["while parsing a flow node", "own/study/mine.yaml"],
         own("study/mine", PUBLIC + "arms: [{method: \n")),
    Case("file", "config", "cut_status", ["status", "hydra.searchpath=[file://own]", "study=mine"],
         ["while parsing a flow node", "own/study/mine.yaml"], own("study/mine", PUBLIC + "arms: [{method: \n")),
    Case("file", "config", "binary", [*OWN, "study=mine"], ["a configuration file is no text"],
         own("study/mine", b"\xff\xfe\x00")),
    Case("file", "config", "no_mapping", [*OWN, "grid=mine"], ["grid.just text: unknown key; allowed"],
         own("grid/mine", "just text\n"), slow=True),
    Case("file", "config", "missing", [*OWN, "study=mine"], ["Could not find 'study/mine' Available options"],
         own("study/other", PUBLIC)),
    Case("file", "config", "is_a_folder", [*OWN, "study=mine"], ["Could not find 'study/mine' Available options"],
         folder_in_the_place_of("own/study/mine.yaml"), slow=True),
    Case("file", "config", "analysis_cut", TABLE, ["conf/analysis.yaml: while parsing a flow"],
         analysis("confidence: 0.95", "confidence: [")),
    Case("file", "config", "analysis_cut_ledger", ["ledger.py"], ["conf/analysis.yaml: while parsing a flow"],
         lambda work: (analysis("confidence: 0.95", "confidence: [")(work), remove("results")(work)), slow=True),
    Case("file", "config", "analysis_missing", TABLE, ["no analysis settings at", "restore conf/analysis.yaml"],
         remove("conf/analysis.yaml")),
    Case("folder", "config", "missing", ["--config-dir", "nowhere", "study=mine"],
         ["Additional config directory", "nowhere' not found"]),
    Case("folder", "config", "searchpath_missing", ["hydra.searchpath=[file://nowhere]", "study=mine"],
         ["Could not find 'study/mine'"], lines=None, slow=True),
    Case("folder", "config", "is_a_file", [*OWN, "study=mine"], ["own' not found"], file_in_the_place_of("own")),
    Case("folder", "config", "group_is_a_file", [*OWN, "study=mine"], ["Could not find 'study/mine'"],
         file_in_the_place_of("own/study"), slow=True),
    Case("folder", "config", "analysis_missing", TABLE, ["no analysis settings at"], remove("conf")),
    Case("pair", "config", "arm_and_fisher", [*OWN, "study=mine"],
         ["arm method=finetune, fisher=exact: fisher=: this method uses no Fisher"],
         own("study/mine", PUBLIC + "arms: [{method: finetune, fisher: exact}]\n")),
    Case("pair", "config", "model_and_data", [*OWN, "study=mine"], ["model=convnet: needs images", "not [8, 8]"],
         own("study/mine", "# @package _global_\ndefaults:\n  - override /model: convnet\nname: mine\n"),
         slow=True),
    Case("pair", "config", "mean_and_data", [*OWN, "benchmark=mine"],
         ["benchmark.mean=[0.5]: must be null, as the images have no channels"],
         own("benchmark/mine", "defaults: [split_digits]\nname: mine\nmean: [0.5]\nstd: [1]\n"), slow=True),
    Case("pair", "config", "lambda_and_dtype", [*OWN, "study=mine"],
         ["lambda=1e+39: must be at most 3.4e+38, the largest float32"],
         own("study/mine", PUBLIC + "lam: 1.0e+39\n"), slow=True),
    Case("pair", "config", "twice_a_lambda", [*OWN, "grid=mine"], ["grid.lambdas=[1, 1.0]: must not repeat a value"],
         own("grid/mine", "lambdas: [1, 1.0]\n"), slow=True),
]  # fmt: skip


def cli_case(kind: str, override: str, says: str, *others: str, slow: bool = True) -> Case:
    """`python -m cl_repro OVERRIDE OTHERS`; names itself."""
    return Case(kind, "cli", override, [override, *others], [says], slow=slow)


CLI = [
    cli_case("key", "speed=3", "unknown key speed; allowed: arms, batch_size, benchmark", slow=False),
    cli_case("key", "fisher.m=3", "unknown key fisher.m; allowed: _target_, n, name, normalisation", slow=False),
    cli_case("key", "+fisher.labels=all", "fisher.labels: batched takes no such key; allowed: b", "fisher=batched"),
    Case("value", "cli", "each_side", ["grid=around", "grid.each_side=-1"],
         ["grid.each_side=-1: must be an integer of at least 0, in decades"]),
    Case("value", "cli", "each_side_of", ["grid=around", "grid.each_side=many"],
         ["grid.each_side=many: must be an integer of at least 0, in decades"]),
    cli_case("key", "+grid.step=2", "grid.step: unknown key; allowed: lambdas, window"),
    cli_case("key", "~benchmark.n_tasks", "benchmark.n_tasks: split_digits needs this key"),
    cli_case("key", "~optim.reset", "optim.reset: missing; every file under optim/ has it"),
    cli_case("key", "fisher.n=4", "arm method=finetune: unknown key fisher.n", "study=split_digits_fisher"),
    cli_case("key", "arms=[{foo: 1}]", "arm foo=1: unknown key foo; allowed: arms, batch_size"),
    cli_case("key", "statsu", "Error parsing override 'statsu' missing EQUAL", "study=split_digits_fisher"),
    cli_case("pair", "hydra/launcher=workstation", "a launcher starts the jobs of a sweep: it needs -m", slow=False),
    cli_case("pair", "hydra/launcher=slurm", "hydra/launcher=slurm: a launcher starts", "study=split_digits_fisher"),
    Case("pair", "cli", "launcher_of_status", ["status", "hydra/launcher=slurm"],
         ["hydra/launcher=: a launcher starts the jobs of a sweep, `python -m cl_repro -m`; leave it out"]),
    Case("pair", "cli", "launcher_of_plan", ["plan", "hydra.launcher.n_jobs=2"], ["hydra.launcher.n_jobs=: a la"]),
    Case("pair", "cli", "launcher_of_a_script", ["idea.py", "hydra/launcher=local"], ["hydra/launcher=: a launcher"],
         slow=True),
    Case("key", "cli", "status", ["status", "speed=3"], ["unknown key speed; allowed: arms"]),
    Case("key", "cli", "plan", ["plan", "speed=3"], ["unknown key speed; allowed: arms"], slow=True),
    Case("key", "cli", "option", ["--resume"], ["unrecognized arguments: --resume"], lines=None, slow=True),
    Case("key", "cli", "script", ["table_accuracy.py", "--resutls-dir", "results"],
         ["table_accuracy.py: unrecognized arguments: --resutls-dir"]),
    cli_case("value", "method=foo", "Could not find 'method/foo' Available options in 'method': af context der",
             slow=False),
    cli_case("value", "fisher=foo", "Could not find 'fisher/foo' Available options in 'fisher': af batched"),
    cli_case("value", "benchmark=foo", "Available options in 'benchmark': cifar10_100"),
    cli_case("value", "study=foo", "Could not find 'study/foo' Available options in 'study': "),
    cli_case("value", "study=", "Could not find 'study/' Available options in 'study'"),
    cli_case("value", "method=null", "Config group override must be a string or a list. Got NoneType", slow=False),
    cli_case("value", "benchmark.dataset=emnist", "dataset=emnist: unknown data set; allowed: digits, mnist, cifar10"),
    cli_case("value", "lam=-1", "lambda=-1.0: must be a finite number of at least 0"),
    cli_case("value", "lam=inf", "lambda=inf: must be a finite number of at least 0"),
    cli_case("value", "lam=nan", "lambda=nan: must be a finite number of at least 0"),
    cli_case("value", "lam=1e400", "lambda=inf: must be a finite number of at least 0"),
    cli_case("value", "lam=null", "field 'lam' is not Optional"),
    cli_case("value", "iterations=many", "iterations=many: must be an integer from 1 to 10000000, or a list"),
    cli_case("value", "iterations=[3,0,3,3,3]", "iterations=[3, 0, 3, 3, 3]: must be an integer from 1 to 10000000"),
    cli_case("value", "iterations=0", "iterations=0: must be an integer from 1 to 10000000, or a list"),
    cli_case("value", "iterations=99999999999", "iterations=99999999999: must be an integer from 1 to 10000000"),
    cli_case("value", "batch_size=0", "batch_size=0: must be an integer from 1 to 10000000"),
    cli_case("value", "rows_per_pass=0", "rows_per_pass=0: must be auto or an integer of at least 1"),
    cli_case("value", "workers=0", "workers=0: must be auto or an integer of at least 1"),
    cli_case("value", "max_replicas=many", "max_replicas=many: must be auto or an integer of at least 1"),
    cli_case("value", "seeds=[]", "seeds=[]: must list at least one seed"),
    cli_case("value", "seeds=[1,1]", "seeds=[1, 1]: must not repeat a seed"),
    cli_case("value", "seeds=[-1]", "seeds=[-1]: -1 must be an integer from 0 to 2**32 - 1"),
    cli_case("value", "seeds=[a]", "Value 'a' of type 'str' could not be converted to Integer"),
    cli_case("value", "dtype=float16", "dtype=float16: must be one of float32, float64"),
    cli_case("value", "device=tpu", "device=tpu: must be auto, cpu, cuda or cuda:<index>", slow=False),
    cli_case("value", "retry=some", "retry=some: must be one of all, failed"),
    cli_case("value", "val_fraction=2", "val_fraction=2.0: must be between 0 and 1, or null"),
    cli_case("value", "name=a/b", "name=a/b: names a folder under results_dir, so it must be of letters"),
    cli_case("value", "name=..", "name=..: names a folder under results_dir"),
    cli_case("value", "suffix=/x", "suffix=/x: names a folder under results_dir"),
    cli_case("value", "results_dir=", "results_dir=: must name a folder"),
    cli_case("value", "grid.lambdas=[]", "grid.lambdas=[]: must list at least one lambda"),
    cli_case("value", "grid.lambdas=5", "grid.lambdas=5: must list at least one lambda"),
    cli_case("value", "grid.lambdas=[a]", "lambda=a: must be a finite number of at least 0"),
    cli_case("value", "grid.window.decades=0", "grid.window.decades=0: must be an integer of", "grid=window"),
    cli_case("value", "fisher.n=0", "fisher.n=0: the number of examples must be at least 1, or null for all"),
    cli_case("value", "fisher.n=1.5", "fisher.n=1.5: must be of type int | None", slow=False),
    cli_case("value", "fisher.normalisation=n", "fisher.normalisation=n: must be exact or reference"),
    cli_case("value", "fisher.batch_size=0", "fisher.batch_size=0: must be at least 1", "fisher=batched"),
    cli_case("value", "fisher.reduction=max", "fisher.reduction=max: must be mean or sum", "fisher=batched"),
    cli_case("value", "fisher.labels=both", "fisher.labels=both: must be one of all", "fisher=one_sample/exact"),
    cli_case("value", "benchmark.n_tasks=3", "benchmark.n_tasks=3: must divide the 10 classes of digits"),
    cli_case("value", "benchmark.scale=0", "benchmark.scale=0: must be a finite number above 0"),
    cli_case("value", "benchmark._target_=nope", "benchmark._target_=nope: must be the dotted path of a factory"),
    cli_case("value", "method.gamma=2", "method.gamma=2: must be from 0 to 1"),
    cli_case("value", "method.gamma=abc", "method.gamma=abc: must be of type float"),
    cli_case("value", "method.xi=0", "method.xi=0: must be a finite number above 0", "method=si"),
    cli_case("value", "method.beta2=1", "method.beta2=1: must be at least 0 and below 1", "method=sos"),
    cli_case("value", "method.growth=fast", "method.growth=fast: must be constant or linear", "method=l2"),
    cli_case("value", "reinit=maybe", "Value 'maybe' is not a valid bool"),
    cli_case("value", "optim.lr=-1", "optim=adam: Invalid learning rate: -1"),
    cli_case("value", "optim.lr=abc", "optim.lr=abc: must be of type float"),
    cli_case("value", "model.hidden=[0]", "model.hidden=[0]: must list layer sizes of at least 1"),
    cli_case("value", "model.hidden=5", "model.hidden=5: must be of type Sequence[int]"),
    cli_case("value", "arms=[]", "arms=[]: must be a list of choices"),
    cli_case("value", "arms=5", "arms=5: must be a list of choices"),
    cli_case("value", "arms=[{method: [ewc]}]", "arms=[{'method': ['ewc']}]: must be a list of choices"),
    cli_case("value", "benchmark.protocol=null", "Error trying to access benchmark.protocol.seeds.cpu"),
    cli_case("value", "lam=1,2", "Ambiguous value for argument 'lam=1,2'"),
    Case("value", "cli", "status", ["status", "lam=-1"], ["lambda=-1.0: must be a finite number of at least 0"]),
    Case("value", "cli", "plan", ["plan", "lam=-1"], ["lambda=-1.0: must be a finite number of at least 0"]),
    Case("value", "cli", "status_choice", ["status", "method=foo"], ["Could not find 'method/foo'"], slow=True),
    Case("value", "cli", "table", ["table_accuracy.py", "nope"], ["no results at", f"nope (there: runs, {STUDY})"]),
    Case("value", "cli", "prepare_data", ["prepare_data.py", "digits", "mnits", "--data-dir", "data"],
         ["dataset=mnits: unknown data set; allowed: digits, mnist"]),
    Case("value", "cli", "bench", ["bench.py", "--rounds", "0"],
         ["argument --rounds: 0: must be an integer of at least 1"], lines=None, slow=True),
    Case("file", "cli", "results_dir", ["results_dir=a_file"], ["a_file: must be a folder, is a file"]),
    Case("file", "cli", "results_dir_status", ["status", "results_dir=a_file"], ["a_file: must be a folder"]),
    Case("file", "cli", "results_dir_plan", ["plan", "results_dir=a_file"], ["a_file: must be a folder"], slow=True),
    Case("file", "cli", "data_dir", ["benchmark=split_mnist", "data_dir=a_file"],
         ["MNIST not found: looked for", "a_file/mnist.npz"], slow=True),
    Case("file", "cli", "table", ["table_accuracy.py", f"{STUDY}/runs.csv"], ["no results at", "runs.csv (there: "]),
    Case("file", "cli", "out", [*TABLE, "--out", "a_file"], ["a_file: must be a folder, is a file"]),
    Case("file", "cli", "bench_out", ["bench.py", "--out", "a_file/bench"], ["a_file: must be a folder"], slow=True),
    Case("file", "cli", "prepare_data", ["prepare_data.py", "mnist", "--data-dir", "a_file"],
         ["a_file: must be a folder, is a file"]),
    Case("folder", "cli", "below_a_file", ["results_dir=a_file/x"], ["a_file: must be a folder, is a file"], slow=True),
    Case("folder", "cli", "results_dir_not_writable", ["results_dir=/proc/none"],
         ["/proc/none/runs: results cannot be written here: "]),
    Case("folder", "cli", "results_dir_too_long", [f"results_dir={LONG}"], ["cannot be a folder: File name too long"],
         slow=True),
    Case("folder", "cli", "status_too_long", ["status", f"results_dir={LONG}"], ["File name too long"], slow=True),
    Case("folder", "cli", "data_dir_missing", ["benchmark=split_mnist", "data_dir=nowhere"],
         ["MNIST not found: looked for", "nowhere/mnist.npz", "run `make data`"]),
    Case("folder", "cli", "data_dir_too_long", ["benchmark=split_mnist", f"data_dir={LONG}"],
         ["cannot be read: File name too long"], slow=True),
    Case("folder", "cli", "table_results_dir", ["table_accuracy.py", "--results-dir", "nowhere"],
         ["no curves or arms or comparison or listing results under nowhere: run `make reproduce` first"]),
    Case("folder", "cli", "ledger_results_dir", ["ledger.py", "--results-dir", "nowhere", "--check"],
         ["no ledger at nowhere/ledger.csv: write it with `make ledger` first"]),
    Case("folder", "cli", "out_not_writable", [*TABLE, "--out", "/proc/none"], ["/proc/none/", "cannot be written: "]),
    Case("folder", "cli", "figures_not_writable", ["plot_lambda_curves.py", STUDY, "--out", "/proc/none"],
         ["/proc/none/", "cannot be written: "], slow=True),
    cli_case("pair", "fisher=sample", "fisher=: this method uses no Fisher", "method=finetune", slow=False),
    cli_case("pair", "method=joint", "method=: this study lists its arms", "study=split_digits_fisher", slow=False),
    cli_case("pair", "fisher=exact", "fisher=: this study lists its arms", "arms=[{fisher: exact}]"),
    cli_case("pair", "lam=5", "lam=5: this grid has lambdas of its own; choose grid=one", "grid=blog", slow=False),
    cli_case("pair", "lam=1e39", "lambda=1e+39: must be at most 3.4e+38, the largest float32"),
    cli_case("pair", "grid.lambdas=[1,1e0]", "must not repeat a value"),
    cli_case("pair", "iterations=[3,3]", "iterations=[3, 3]: must be one number, or one for each of the 5 tasks"),
    cli_case("pair", "batch_size=5000", "batch_size=5000: must be at most the 272 examples of task 0 of seed 1",
             slow=False),
    cli_case("pair", "fisher.n=5000", "fisher.n=5000: must be at most the 272 examples of task 0 of seed 1"),
    cli_case("pair", "fisher.batch_size=300", "fisher.batch_size=300: must be at most the 272", "fisher=batched"),
    cli_case("pair", "fisher.batch_size=272", "divides by 1 - 1, so a task needs at least 2 units", "fisher=batched",
             "fisher.normalisation=reference"),
    cli_case("pair", "val_fraction=0.999", "val_fraction=0.999: leaves no example of task 0 of seed 1"),
    cli_case("pair", "benchmark.train_per_task=300", "benchmark.train_per_task=300: must be an integer from 1 to 264"),
    cli_case("pair", "model=convnet", "model=convnet: needs images [colours, height, width], not [8, 8]"),
    Case("pair", "cli", "device_and_machine", ["device=cuda"], ["device=cuda: torch sees no CUDA device"], no_cuda),
    Case("pair", "cli", "status_lam_and_grid", ["status", "lam=5", "grid=blog"], ["lam=5: this grid has"], slow=True),
    Case("pair", "cli", "script_and_study", ["table_timing.py", STUDY], ["is a curves study, not timing"]),
    Case("pair", "cli", "figure_and_runs", ["plot_lambda_curves.py", STUDY, "runs"],
         ["results/runs/runs.csv: no arm has two values of lambda"]),
]  # fmt: skip

DATA = [
    Case("key", "data", "array_left_out", MNIST, ["mnist.npz: no array 'y_test'; it must hold x_train, y_train,"],
         npz(y_test=None)),
    Case("value", "data", "floats", MNIST, ["x_train is float64, must be uint8"],
         npz(x_train=np.full((120, 28, 28), 0.5)), slow=True),
    Case("value", "data", "one_label", MNIST, ["mnist.npz: not the real mnist: checksum", "run `make data`"],
         npz(y_test=np.zeros(100, int))),
    Case("value", "data", "idx_magic", MNIST, ["train-labels-idx1-ubyte: cannot be read (magic 0x00000901"],
         raw(flip("data/MNIST/raw/train-labels-idx1-ubyte", 2)), slow=True),
    Case("file", "data", "missing", MNIST, ["MNIST not found: looked for"], remove("data/mnist.npz"), slow=True),
    Case("file", "data", "cut", MNIST, ["mnist.npz: cannot be read (", "move it away and run `make data`"],
         cut("data/mnist.npz")),
    Case("file", "data", "cut_plan", ["plan", *MNIST], ["mnist.npz: cannot be read ("], cut("data/mnist.npz"),
         slow=True),
    Case("file", "data", "cut_prepare", ["prepare_data.py", "mnist", "--data-dir", "data"],
         ["mnist.npz: cannot be read ("], cut("data/mnist.npz")),
    Case("file", "data", "empty", MNIST, ["mnist.npz: cannot be read ("], cut("data/mnist.npz", 0), slow=True),
    Case("file", "data", "bit_flipped", MNIST, ["mnist.npz: "], flip("data/mnist.npz", 1000), slow=True),
    Case("file", "data", "other_format", MNIST, ["mnist.npz: cannot be read ("], write("data/mnist.npz", "<html>"),
         slow=True),
    Case("file", "data", "unreadable", MNIST, ["mnist.npz: cannot be read ("], unreadable("data/mnist.npz")),
    Case("file", "data", "is_a_folder", MNIST, ["MNIST not found"], folder_in_the_place_of("data/mnist.npz"),
         slow=True),
    Case("file", "data", "idx_cut", MNIST, ["t10k-images-idx3-ubyte: cannot be read (truncated: "],
         raw(cut("data/MNIST/raw/t10k-images-idx3-ubyte"))),
    Case("file", "data", "idx_missing", MNIST, ["MNIST not found", "t10k-images-idx3-ubyte"],
         raw(remove("data/MNIST/raw/t10k-images-idx3-ubyte")), slow=True),
    Case("folder", "data", "missing", MNIST, ["MNIST not found: looked for", "say where it is"], remove("data")),
    Case("folder", "data", "is_a_file", MNIST, ["MNIST not found"], file_in_the_place_of("data"), slow=True),
    Case("folder", "data", "raw_is_a_file", MNIST, ["MNIST not found: looked for"],
         raw(file_in_the_place_of("data/MNIST/raw")), slow=True),
    Case("pair", "data", "lengths", MNIST, ["mnist.npz: y_train has shape [99], must be [120], a label for each image"],
         npz(y_train=np.zeros(99, int)), slow=True),
    Case("pair", "data", "train_as_test", MNIST, ["MNIST/raw: not the real mnist: checksum"],
         raw(lambda work: shutil.copy(work / "data/MNIST/raw/train-labels-idx1-ubyte",
                                      work / "data/MNIST/raw/t10k-labels-idx1-ubyte")), slow=True),
    Case("pair", "data", "cifar_lengths", ["benchmark=split_cifar10", "data_dir=data"],
         ["cifar10.npz: y_train has shape [9], must be [10], a label for each image"],
         lambda work: np.savez(work / "data/cifar10.npz", y_train=np.zeros(9, int), y_test=np.zeros(10, int),
                               **dict.fromkeys(("x_train", "x_test"), np.zeros((10, 32, 32, 3), np.uint8)))),
]  # fmt: skip

RUNS, PROVENANCE = f"results/{STUDY}/runs.csv", f"results/{STUDY}/provenance.json"
RESULTS = [
    Case("key", "results", "foreign_column", [OURS], ["runs.csv: its header is not the one this version writes"],
         rewrite("runs.csv", "accuracy,forgetting", "acc,forgetting")),
    Case("key", "results", "foreign_column_table", TABLE, ["runs.csv: column 'accuracy' is missing (columns: run_id"],
         rewrite("runs.csv", "accuracy,forgetting", "acc,forgetting")),
    Case("key", "results", "provenance", STATUS, ["provenance.json: 'files' is missing or edited"],
         provenance(files=None)),
    Case("key", "results", "spool", STATUS, [".spool/x.json: truncated or edited; remove it"],
         spool("{}"), slow=True),
    Case("key", "results", "ledger", ["ledger.py", "--check"], ["ledger.csv: column 'benchmark' is missing"],
         write("results/ledger.csv", "study,source\n")),
    Case("value", "results", "edited", [OURS], ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98"), slow=True),
    Case("value", "results", "edited_status", STATUS, ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "edited_plan", ["plan", OURS], ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98"), slow=True),
    Case("value", "results", "edited_table", TABLE, ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "edited_ledger", ["ledger.py"], ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98"), slow=True),
    Case("value", "results", "schema", [OURS], ["written with schema version 99, this code has 1"],
         provenance(schema_version=99)),
    Case("value", "results", "schema_figure", ["plot_lambda_curves.py"], ["schema_version 99, but this code reads"],
         provenance(schema_version=99)),
    Case("value", "results", "impossible", TABLE, ["accuracy = 97.0 must be a fraction in [0, 1]"],
         rewrite("runs.csv", ",0.97,", ",97.0,"), slow=True),
    Case("file", "results", "cut", [OURS], ["runs.csv: edited since the run wrote it"], cut(RUNS)),
    Case("file", "results", "cut_table", TABLE, ["runs.csv: edited since the run wrote it", "cut short"], cut(RUNS)),
    Case("file", "results", "missing", [OURS], ["runs.csv: missing, though provenance.json knows it"], remove(RUNS),
         slow=True),
    Case("file", "results", "is_a_folder", STATUS, ["runs.csv: cannot be read: Is a directory"],
         folder_in_the_place_of(RUNS)),
    Case("file", "results", "provenance_cut", [OURS], ["provenance.json: not readable as provenance"], cut(PROVENANCE)),
    Case("file", "results", "provenance_cut_table", TABLE, ["provenance.json: unreadable or cut short"],
         cut(PROVENANCE), slow=True),
    Case("file", "results", "provenance_missing", STATUS, ["accuracy.csv: edited since the run wrote it"],
         remove(PROVENANCE), slow=True),
    Case("file", "results", "provenance_is_a_folder", TABLE, ["provenance.json: unreadable or cut short"],
         folder_in_the_place_of(PROVENANCE), slow=True),
    Case("file", "results", "spool_cut", [OURS], [".spool/x.json: truncated or edited; remove it"],
         spool(SPOOLED[:-1])),
    Case("file", "results", "failure_cut", STATUS, ["failed/x.json: truncated or edited; remove it"],
         write(f"results/{STUDY}/failed/x.json", "{")),
    Case("file", "results", "ledger_missing", ["ledger.py", "--check"], ["no ledger at", "with `make ledger` first"]),
    Case("folder", "results", "is_a_file", ["seeds=[1]"], ["results: must be a folder, is a file"],
         file_in_the_place_of("results")),
    Case("folder", "results", "is_a_file_status", STATUS, ["results: must be a folder, is a file"],
         file_in_the_place_of("results")),
    Case("folder", "results", "study_is_a_file", [OURS], ["must be a folder, is a file"],
         file_in_the_place_of(f"results/{STUDY}"), slow=True),
    Case("folder", "results", "study_is_a_file_table", TABLE, ["no results at", f"{STUDY} (there: runs)"],
         file_in_the_place_of(f"results/{STUDY}"), slow=True),
    Case("folder", "results", "spool_is_a_file", [OURS], [f"{STUDY}: results cannot be written here: File exists"],
         file_in_the_place_of(f"results/{STUDY}/.spool")),
    Case("folder", "results", "is_a_file_window", ["grid=window"], ["results: must be a folder, is a file"],
         file_in_the_place_of("results"), slow=True),
    Case("folder", "results", "without_runs", TABLE, ["no runs.csv in", "run the study first"],
         lambda work: [path.unlink() for path in (work / "results" / STUDY).iterdir() if path.is_file()]),
    Case("folder", "results", "empty", ["plot_lambda_curves.py"], ["no curves or arms or listing results under"],
         lambda work: (remove("results")(work), (work / "results").mkdir())),
    Case("pair", "results", "runs_and_provenance", [OURS], ["runs.csv: edited since the run wrote it"],
         exchange("runs.csv"), slow=True),
    Case("pair", "results", "runs_and_provenance_table", TABLE, ["runs.csv: edited since the run wrote it"],
         exchange("runs.csv")),
    Case("pair", "results", "accuracy_and_runs", STATUS, ["accuracy.csv: edited since the run wrote it"],
         exchange("accuracy.csv"), slow=True),
    Case("pair", "results", "twice_a_run", TABLE, ["runs.csv: run_id", "occurs twice: the file has been edited"],
         lambda work: rewrite("runs.csv", last := (work / RUNS).read_text().splitlines(True)[-1], last * 2)(work)),
    Case("pair", "results", "good_and_damaged", ["table_accuracy.py", STUDY, "runs"],
         ["results/runs/runs.csv: edited since the run wrote it"], change("results/runs/runs.csv", ",0.9", ",0.8")),
]  # fmt: skip

TABLE_OF_CASES = CONFIG + CLI + DATA + RESULTS


# --- the folder in which they run ------------------------------------------------------------------------------------


def put(folder: Path, rows: list[dict]) -> None:
    """Results as a run leaves them; without the spool, which belongs to one machine."""
    accuracy = [
        dict(zip(COLUMNS["accuracy.csv"], (row["run_id"], "test", 4, k, row["accuracy"]), strict=True))
        for row in rows
        for k in range(5)
    ]
    store = Store(folder)
    store.put("made", {"runs.csv": rows, "accuracy.csv": accuracy, "importance.csv": []})
    store.merge()
    shutil.rmtree(store.spool)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made MNIST, results of a study with curves and of one without, a copy of conf/, and a stray file."""
    work = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        made_data.mnist_like(patch, work / "data", per_class=12)
    rows = made_results.fisher_rows(seeds=(1, 2), fishers=("exact",))
    rows[1] |= {"accuracy": 0.97}
    put(work / "results" / STUDY, rows)
    none = [made_results.row("finetune", "finetune", "", None, seed, 0.9, study="runs") for seed in (1, 2)]
    put(work / "results/runs", none)
    (work / "conf").mkdir()
    shutil.copy(CONF / "analysis.yaml", work / "conf")
    (work / "a_file").write_text("not a folder")
    return work


@pytest.fixture
def work(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder; its images count as the real MNIST, its conf/ as the package's."""
    copy = shutil.copytree(template, tmp_path / "work")
    with np.load(copy / "data/mnist.npz") as stored:
        monkeypatch.setitem(CHECKSUMS, "mnist", checksum(Arrays(**stored)))
    monkeypatch.setattr(settings, "conf_dir", lambda: copy / "conf")
    monkeypatch.setattr(runtime, "cuda_devices", runtime.cuda_devices)  # put back after `no_cuda`
    monkeypatch.setenv("COLUMNS", "200")  # argparse wraps its lines
    monkeypatch.chdir(copy)
    return copy


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with its bytes or where it points to."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.fsencode(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


def run(monkeypatch: pytest.MonkeyPatch, work: Path, command: Sequence[str]) -> int:
    """A command of a case in this process; its exit status."""
    if command[0].endswith(".py"):
        return cli.script(monkeypatch, *command)
    return cli.run(monkeypatch, work, *command)


# --- the tests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case.kind}-{case.place}-{case.name}", marks=[pytest.mark.slow] * case.slow)
        for case in TABLE_OF_CASES
    ],
)
def test_bad_input(case: Case, work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    case.spoil(work)
    before = snapshot(work)
    capfd.readouterr()
    assert run(monkeypatch, work, case.command) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    lines = err.splitlines()
    assert case.lines is None or len(lines) == case.lines, err
    assert case.lines is None or lines[-1].startswith("error: ")
    assert [part for part in case.says if part not in lines[-1]] == [], lines[-1]
    assert snapshot(work) == before


def test_every_cell_has_a_case_that_always_runs() -> None:
    assert {(c.kind, c.place) for c in TABLE_OF_CASES if not c.slow} == {(k, p) for k in KINDS for p in PLACES}


def test_what_the_cases_spoil_is_fine_as_it_is(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in (STUDY, "runs"):
        Store(work / "results" / name)
    assert run(monkeypatch, work, STATUS) == 0
    assert run(monkeypatch, work, TABLE) == 0
    assert run(monkeypatch, work, [*MNIST, "seeds=[1]", "iterations=1", "fisher.n=8", "workers=1"]) == 0
    assert "split_mnist_fisher.md" in capfd.readouterr().out


def test_looking_makes_no_folder(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(work)
    assert run(monkeypatch, work, STATUS) == 0
    assert run(monkeypatch, work, ["status", "name=never_ran"]) == 0
    assert snapshot(work) == before


# --- in processes of their own: what a shell sees --------------------------------------------------------------------


def shell(work: Path, text: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which PY is this Python."""
    env = os.environ | {"PYTHONPATH": str(cli.ROOT), "PY": sys.executable}
    return subprocess.run(["bash", "-c", text], cwd=work, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        f"$PY {cli.ROOT}/scripts/table_accuracy.py --show",
        pytest.param("$PY -m cl_repro seeds=[1] iterations=1 workers=1", marks=pytest.mark.slow),
        pytest.param("$PY -m cl_repro status", marks=pytest.mark.slow),
        pytest.param(f"$PY {cli.ROOT}/scripts/ledger.py", marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_away_ends_it_without_a_word(command: str, work: Path) -> None:
    done = shell(work, f"{command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)  # by whether it came to write; 1 is rich's


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ("reproduce STUDY=nope", "error: In 'config': Could not find 'study/nope' Available options in 'study': "),
        ("status SCALE=nope", "error: In 'config': Could not find 'scale/nope' Available options in 'scale': cpu"),
        ("plan ARGS=iterations=0", "error: iterations=0: must be an integer from 1"),
        ("reproduce STUDY=", "error: In 'config': Could not find 'study/'"),
    ],
)
def test_variables_of_make(variables: str, says: str, work: Path) -> None:
    before = snapshot(work)
    done = shell(work, f"make -f {cli.ROOT}/Makefile -o .venv/.ready PY=$PY {variables}")
    first, last = done.stderr.splitlines()
    assert (first[: len(says)], done.returncode) == (says, 2)
    assert last.startswith("make: ***")
    assert snapshot(work) == before


def test_a_read_only_folder_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # what mkdir says, to everyone but root

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="results cannot be written here: Permission denied"):
        Store(tmp_path / "study").create()


def test_rows_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    for rows in (5, [5], [{"foreign": 1}]):
        (store.spool / "x.json").write_text(json.dumps(dict.fromkeys(COLUMNS, rows)))
        with pytest.raises(UserError, match=r"x\.json: truncated or edited"):
            store.finished()
    (store.spool / "x.json").write_text(SPOOLED)
    assert store.finished() == set()
    assert to_csv(["a"], []) == b"a\n"
