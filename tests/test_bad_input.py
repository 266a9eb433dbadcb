"""Bad input, as a table: kind (key, value, file, folder, pair) x place (config, CLI, data, results).

Every case is one command in a folder with made data, made results and a configuration of the user's own. Whatever it
gets wrong: exit status 2, one line on standard error that names the value and the rule, no traceback, and not a byte
written. What Hydra and argparse refuse themselves keeps their text. What people type has a table of its own.
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cli
import hydra
import made_data
import made_results
import numpy as np
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from cl_repro.analysis.data import settings
from cl_repro.benchmarks.data.arrays import CHECKSUMS, Arrays, checksum
from cl_repro.common import errors, runtime
from cl_repro.common.errors import UserError
from cl_repro.records import Store, sha256
from cl_repro.records.schema import STUDY as TABLES
from cl_repro.study.config import CONF

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


def four_terabytes(work: Path) -> None:
    """A header that promises more than any machine has memory for."""
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (5 * 10**9, 28, 28)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(work / "data/mnist.npz", "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", header.getvalue())


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


def exchange(name: str) -> Spoil:
    """A table of another study in this one's folder."""
    return lambda work: shutil.copy(work / "results/runs" / name, work / "results" / STUDY / name)


def no_cuda(work: Path) -> None:
    """A machine without a CUDA device, wherever the tests run; `case` undoes it."""
    runtime.cuda_devices = lambda: 0


# --- ways to ask -----------------------------------------------------------------------------------------------------

OWN = ["plan", "--config-dir", "own"]
MNIST = ["plan", "benchmark=split_mnist", "batch_size=8", "model.hidden=[6]", "data_dir=data"]
OURS = f"name={STUDY}"  # digits into the folder of the made results: refused as soon as it is opened
STATUS = ["status", OURS, "seeds=[1]"]
TABLE = ["table.py", STUDY]
PUBLIC = "# @package _global_\nname: mine\n"
FACTORY = "name: mine\n_target_: cl_repro.importance.fisher.exact\n"
LONG = "x" * 300  # longer than a file system allows


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
         own("fisher/mine", "name: mine\n_target_: cl_repro.importance.batched.batched\n")),
    Case("key", "config", "no_target", [*OWN, "fisher=mine"], ["fisher._target_: missing; every file under fisher/"],
         own("fisher/mine", "name: mine\n")),
    Case("key", "config", "no_name", [*OWN, "fisher=mine"], ["fisher.name: missing"],
         own("fisher/mine", "_target_: cl_repro.importance.fisher.exact\n")),
    Case("key", "config", "no_flag", [*OWN, "method=mine"], ["method.uses_lambda: missing"],
         own("method/mine", "name: mine\n_target_: cl_repro.methods.baselines.finetune\n")),
    Case("key", "config", "grid", [*OWN, "grid=mine"], ["grid.lams: unknown key; allowed: lambdas, window"],
         own("grid/mine", "lams: [1]\n")),
    Case("key", "config", "package", [*OWN, "study=mine"], ["Key 'study' not in 'Schema'"],
         own("study/mine", "name: mine\n")),
    Case("key", "config", "analysis", TABLE, ["conf/analysis.yaml: unknown key 'confidenze' (keys: confidence, "],
         analysis("confidence:", "confidence: 0.9\nconfidenze:")),
    Case("value", "config", "type", [*OWN, "study=mine"], ["Value 'many' of type 'str' could not be converted to Int"],
         own("study/mine", PUBLIC + "batch_size: many\n")),
    Case("value", "config", "range", [*OWN, "study=mine"], ["lambda=-1.0: must be a finite number of at least 0"],
         own("study/mine", PUBLIC + "lam: -1\n")),
    Case("value", "config", "argument_type", [*OWN, "fisher=mine"], ["fisher.n=1.5: must be of type int | None"],
         own("fisher/mine", FACTORY + "n: 1.5\n")),
    Case("value", "config", "target", [*OWN, "fisher=mine"], ["fisher._target_=cl_repro.nope.f: must be the dotted"],
         own("fisher/mine", "name: mine\n_target_: cl_repro.nope.f\n")),
    Case("value", "config", "target_is_a_module", [*OWN, "fisher=mine"],
         ["fisher._target_=cl_repro.importance.fisher: must be a factory, is a module"],
         own("fisher/mine", "name: mine\n_target_: cl_repro.importance.fisher\n")),
    Case("value", "config", "flag", [*OWN, "optim=mine"], ["optim.reset=never: must be true or false"],
         own("optim/mine", "name: mine\n_target_: torch.optim.SGD\nlr: 0.1\nreset: never\n")),
    Case("pair", "config", "analysis", [*OWN, "study=mine"],
         ["analysis.title: figures and tables read it in this package's conf/study/ alone, and study mine is of"],
         own("study/mine", PUBLIC + "analysis: {title: Mine}\n")),
    Case("pair", "config", "analysis_of_ours", [*OWN, "study=library_fisher"],
         ["analysis.title: figures and tables read it in this package's conf/study/ alone, and study library_fisher"],
         own("study/library_fisher", "# @package _global_\nname: library_fisher\nanalysis: {title: Mine}\n")),
    Case("value", "config", "name", [*OWN, "study=mine"], ["name=a/b: names a folder under results_dir, so it must be"],
         own("study/mine", "# @package _global_\nname: a/b\n")),
    Case("value", "config", "choice", [*OWN, "study=mine"], ["Could not find 'grid/blok' Available options in 'grid'"],
         own("study/mine", "# @package _global_\ndefaults:\n  - override /grid: blok\nname: mine\n")),
    Case("value", "config", "analysis", TABLE, ["confidence = 95.0 must be between 0 and 1"],
         analysis("confidence: 0.95", "confidence: 95")),
    Case("file", "config", "cut", [*OWN, "study=mine"], ["while parsing a flow node", "own/study/mine.yaml"],
         own("study/mine", PUBLIC + "arms: [{method: \n")),
    Case("file", "config", "cut_status", ["status", "hydra.searchpath=[file://own]", "study=mine"],
         ["while parsing a flow node", "own/study/mine.yaml"], own("study/mine", PUBLIC + "arms: [{method: \n")),
    Case("file", "config", "binary", [*OWN, "study=mine"], ["a configuration file is no text"],
         own("study/mine", b"\xff\xfe\x00")),
    Case("file", "config", "no_mapping", [*OWN, "grid=mine"], ["grid.just text: unknown key; allowed"],
         own("grid/mine", "just text\n")),
    Case("file", "config", "missing", [*OWN, "study=mine"], ["Could not find 'study/mine' Available options"],
         own("study/other", PUBLIC)),
    Case("file", "config", "is_a_folder", [*OWN, "study=mine"], ["Could not find 'study/mine' Available options"],
         folder_in_the_place_of("own/study/mine.yaml")),
    Case("file", "config", "analysis_cut", TABLE, ["conf/analysis.yaml: while parsing a flow"],
         analysis("confidence: 0.95", "confidence: [")),
    Case("file", "config", "analysis_cut_ledger", ["ledger.py"], ["conf/analysis.yaml: while parsing a flow"],
         lambda work: (analysis("confidence: 0.95", "confidence: [")(work), remove("results")(work),
                       shutil.copytree(CONF / "study", work / "conf/study"))),
    Case("file", "config", "analysis_missing", TABLE, ["no analysis settings at", "restore conf/analysis.yaml"],
         remove("conf/analysis.yaml")),
    Case("folder", "config", "missing", ["--config-dir", "nowhere", "study=mine"],
         ["Additional config directory", "nowhere' not found"]),
    Case("folder", "config", "searchpath_missing", ["hydra.searchpath=[file://nowhere]", "study=mine"],
         ["Could not find 'study/mine'"], lines=None),
    Case("folder", "config", "is_a_file", [*OWN, "study=mine"], ["own' not found"], file_in_the_place_of("own")),
    Case("folder", "config", "group_is_a_file", [*OWN, "study=mine"], ["Could not find 'study/mine'"],
         file_in_the_place_of("own/study")),
    Case("folder", "config", "analysis_missing", TABLE, ["no analysis settings at"], remove("conf")),
    Case("pair", "config", "arm_and_fisher", [*OWN, "study=mine"],
         ["arm method=finetune, fisher=exact: fisher=: this method uses no Fisher"],
         own("study/mine", PUBLIC + "arms: [{method: finetune, fisher: exact}]\n")),
    Case("pair", "config", "model_and_data", [*OWN, "study=mine"], ["model=convnet: needs images", "not [8, 8]"],
         own("study/mine", "# @package _global_\ndefaults:\n  - override /model: convnet\nname: mine\n")),
    Case("pair", "config", "mean_and_data", [*OWN, "benchmark=mine"],
         ["benchmark.mean=[0.5, 0.5]: must be 1 finite number in a list"],
         own("benchmark/mine", "defaults: [split_digits]\nname: mine\nmean: [0.5, 0.5]\nstd: [1, 1]\n")),
    Case("pair", "config", "lambda_and_dtype", [*OWN, "study=mine"],
         ["lambda=1e+39: must be at most 3.4e+38, the largest float32"],
         own("study/mine", PUBLIC + "lam: 1.0e+39\n")),
    Case("pair", "config", "twice_a_lambda", [*OWN, "grid=mine"], ["grid.lambdas=[1, 1.0]: must not repeat a value"],
         own("grid/mine", "lambdas: [1, 1.0]\n")),
]  # fmt: skip


# What one types after `python -m cl_repro plan`, and a part of the line that refuses it: one mistake a line.
TYPED = r"""
speed=3 | unknown key speed
fisher.m=3 | unknown key fisher.m
+fisher.labels=all fisher=batched | fisher.labels: batched takes no such key
+grid.step=2 | grid.step: unknown key
~benchmark.n_tasks | benchmark.n_tasks: split_digits needs this key
~optim.reset | optim.reset: missing
fisher.n=4 study=split_digits_fisher | arm method=finetune: unknown key fisher.n
arms=[{foo: 1}] | arm foo=1: unknown key foo
statsu study=split_digits_fisher | Error parsing override 'statsu' missing EQUAL at '<EOF>' See
method=foo | Could not find 'method/foo' Available options in 'method':
fisher=foo | Could not find 'fisher/foo' Available options in 'fisher':
benchmark=foo | Could not find 'benchmark/foo' Available options in 'benchmark':
study=foo | Could not find 'study/foo' Available options in 'study':
study= | Could not find 'study/' Available options in 'study':
method=null | Could not find 'method/null' Available options in 'method':
benchmark.dataset=emnist | dataset=emnist: unknown data set
lam=-1 | lambda=-1.0: must be a finite number of at least 0
lam=inf | lambda=inf: must be a finite number of at least 0
lam=nan | lambda=nan: must be a finite number of at least 0
lam=1e400 | lambda=inf: must be a finite number of at least 0
lam=null | field 'lam' is not Optional
iterations=many | iterations=many: must be an integer from 1 to 10000000, or a list of one for each task
iterations=[3,0,3,3,3] | iterations=[3, 0, 3, 3, 3]: must be an integer from 1 to 10000000, or a list of one for each
iterations=0 | iterations=0: must be an integer from 1 to 10000000, or a list of one for each task
iterations=99999999999 | iterations=99999999999: must be an integer from 1 to 10000000, or a list of one for each task
batch_size=0 | batch_size=0: must be an integer from 1 to 10000000
rows_per_pass=0 | rows_per_pass=0: must be auto or an integer from 1 to 10000000
workers=0 | workers=0: must be auto or an integer from 1 to 10000000
max_replicas=many | max_replicas=many: must be auto or an integer from 1 to 10000000
seeds=[] | seeds=[]: must list at least one seed
seeds=[1,1] | seeds=[1, 1]: must not repeat a seed
seeds=[-1] | seeds=[-1]: -1 must be an integer from 0 to 2**32 - 1
allow_targets=5 | Invalid value assigned: int is not a ListConfig, list or tuple.
seeds=1 | Invalid value assigned: int is not a ListConfig, list or tuple.
seeds=[a] | Value 'a' of type 'str' could not be converted to Integer
dtype=float16 | dtype=float16: must be one of float32, float64
device=tpu | device=tpu: must be auto, cpu, cuda or cuda:<index>
retry=some | retry=some: must be one of all, failed
val_fraction=2 | val_fraction=2.0: must be between 0 and 1, or null for no validation rows
name=a/b | name=a/b: names a folder under results_dir, so it must be of letters, digits, _, - and .
name=.. | name=..: names a folder under results_dir, so it must be of letters, digits, _, - and .
suffix=/x | suffix=/x: names a folder under results_dir, so it must be of letters, digits, _, - and .
results_dir= | results_dir=: must name a folder
grid.lambdas=[] | grid.lambdas=[]: must list at least one lambda
grid.lambdas=5 | grid.lambdas=5: must list at least one lambda
grid.lambdas=[a] | lambda=a: must be a finite number of at least 0
grid.window.decades=0 grid=window | grid.window.decades=0: must be an integer from 1 to 300
fisher.n=0 | fisher.n=0: the number of examples must be at least 1, or null for all
fisher.n=1.5 | fisher.n=1.5: must be of type int | None
fisher.normalisation=n | fisher.normalisation=n: must be exact or reference
fisher.batch_size=0 fisher=batched | fisher.batch_size=0: must be at least 1
fisher.reduction=max fisher=batched | fisher.reduction=max: must be mean or sum
fisher.labels=both fisher=one_sample/exact | fisher.labels=both: must be one of all, sample, true, predicted
benchmark.n_tasks=3 | benchmark.n_tasks=3: must divide the 10 classes of digits: one of 1, 2, 5, 10
benchmark.scale=0 | benchmark.scale=0: must be a finite number above 0
benchmark._target_=nope | benchmark._target_=nope: must be the dotted path of a factory
method.gamma=2 | method.gamma=2: must be from 0 to 1
method.gamma=abc | method.gamma=abc: must be of type float
method.xi=0 method=si | method.xi=0: must be a finite number above 0
method.beta2=1 method=sos | method.beta2=1: must be at least 0 and below 1
method.growth=fast method=l2 | method.growth=fast: must be constant or linear
reinit=maybe | Value 'maybe' is not a valid bool (type str)
grid=window grid.window.decades=400 | grid.window.decades=400: must be an integer from 1 to 300
grid=window grid.window.decades=60 | lambda=1e+39: must be at most 3.4e+38, the largest float32
model.hidden=[1000000000,1000000000] | model=mlp with hidden=[1000000000, 1000000000], init=None, bias=None: needs 8e+09
model.hidden=[100000000000000000000] | model.hidden=[100000000000000000000]: must be an integer of 64 bits
model.hidden=[1000000000000000000] | model=mlp with hidden=[1000000000000000000], init=None, bias=None: needs
rows_per_pass=99999999999 | rows_per_pass=99999999999: must be auto or an integer from 1 to 10000000
model.rows_per_pass=5 | model.rows_per_pass=5: must be {cpu: N, cuda: N}, integers from 1 to 10000000
model.rows_per_pass.cpu=0 | model.rows_per_pass={'cpu': 0, 'cuda': 1000}: must be {cpu: N, cuda: N}, integers from 1 to
method.name='' | method.name=: must be text of at least one character
method=replay method.memory.name=null | method.memory.name=None: must be text of at least one character
scale=5 | Could not find 'scale/5' Available options in 'scale':
+a.b.c=1 | a: unknown key; allowed: allow_targets, analysis
grid=around grid.window={a:1} | grid.window={'a': 1}: must have the keys product and decades
optim.lr=-1 | optim=adam: Invalid learning rate: -1
optim.lr=abc | optim.lr=abc: must be of type float | torch.Tensor
model.hidden=[0] | model.hidden=[0]: must list layer sizes of at least 1
model.hidden=5 | model.hidden=5: must be of type Sequence[int]
arms=[] | arms=[]: must be a list of choices such as [{method: finetune}, {method: ewc, fisher: exact}]
arms=5 | arms=5: must be a list of choices such as [{method: finetune}, {method: ewc, fisher: exact}]
arms=[{method: [ewc]}] | arms=[{'method': ['ewc']}]: must be a list of choices such as [{method: finetune}, {method:
benchmark.protocol=null | ConfigTypeError raised while resolving interpolation: Error trying to access
lam=1,2 | Value 'ChoiceSweep(tags=set(), list=[1, 2], simple_form=True, shuffle=False)' of type
fisher=sample method=finetune | fisher=: this method uses no Fisher
method=joint study=split_digits_fisher | method=: this study lists its arms, which choose it
fisher=exact arms=[{fisher: exact}] | fisher=: this study lists its arms, which choose it
lam=5 grid=blog | lam=5: this grid has lambdas of its own
lam=1e39 | lambda=1e+39: must be at most 3.4e+38, the largest float32
grid.lambdas=[1,1e0] | grid.lambdas=[1, 1.0]: must not repeat a value
iterations=[3,3] | iterations=[3, 3]: must be one number, or one for each of the benchmark.n_tasks=5 tasks
batch_size=5000 | batch_size=5000: must be at most the 272 examples of task 0 of seed 1
fisher.n=5000 | fisher.n=5000: must be at most the 272 examples of task 0 of seed 1
fisher.batch_size=300 fisher=batched | fisher.batch_size=300: must be at most the 272 examples of task 0 of seed 1
fisher.batch_size=272 fisher=batched fisher.normalisation=reference | fisher.normalisation=reference: divides by 1 -
val_fraction=0.999 | val_fraction=0.999: leaves no example of task 0 of seed 1
benchmark.train_per_task=300 | benchmark.train_per_task=300: must be an integer from 1 to 264, the training rows of
model=convnet | model=convnet: needs images [colours, height, width], not [8, 8]
method=ewcc | Could not find 'method/ewcc' Available options in 'method':
method=EWC | Could not find 'method/EWC' Available options in 'method':
fisher=Exact | Could not find 'fisher/Exact' Available options in 'fisher':
optimizer=adam | unknown key optimizer
optim=sgdm | Could not find 'optim/sgdm' Available options in 'optim':
scale=full | Could not find 'scale/full' Available options in 'scale':
scenario=til | Could not find 'scenario/til' Available options in 'scenario':
benchmark=mnist | Could not find 'benchmark/mnist' Available options in 'benchmark':
model=resnet18 | Could not find 'model/resnet18' Available options in 'model':
grid=14 | Could not find 'grid/14' Available options in 'grid':
seed=3 | unknown key seed
seeds=3 | Invalid value assigned: int is not a ListConfig, list or tuple.
seeds=[1,2,2] | seeds=[1, 2, 2]: must not repeat a seed
seeds=[1.5] | Value '1.5' of type 'float' could not be converted to Integer
seeds=[true] | Value 'True' of type 'bool' could not be converted to Integer
seeds=[4294967296] | seeds=[4294967296]: 4294967296 must be an integer from 0 to 2**32 - 1
seeds=null | field 'seeds' is not Optional
seeds={a:1} | Cannot merge DictConfig with ListConfig
lam=abc | Value 'abc' of type 'str' could not be converted to Float
lam=[1,2] | Value '[1, 2]' of type 'list' could not be converted to Float
lam=true | Value 'True' of type 'bool' could not be converted to Float
lam=-0.5 | lambda=-0.5: must be a finite number of at least 0
lam=NaN | lambda=nan: must be a finite number of at least 0
lambda=100 | unknown key lambda
lr=0.1 | unknown key lr
grid.lambdas=[1,null] | lambda=None: must be a finite number of at least 0
grid.lambdas=[true] | lambda=True: must be a finite number of at least 0
grid.lambdas=[1,[2]] | lambda=[2]: must be a finite number of at least 0
grid.lambdas=[inf] | lambda=inf: must be a finite number of at least 0
grid.lambdas=[-1,1] | lambda=-1: must be a finite number of at least 0
grid.lambdas=["1"] | lambda=1: must be a finite number of at least 0
grid.lambdas=null | grid.lambdas=None: must list at least one lambda
grid.lambdas={a:1} | Cannot merge DictConfig with ListConfig
grid.lambdas=10 | grid.lambdas=10: must list at least one lambda
grid.lambdas=[10,1,10] | grid.lambdas=[10, 1, 10]: must not repeat a value
grid=around grid.centre=0 | grid.centre=0: must be a finite number above 0
grid=around grid.centre=-1 | grid.centre=-1: must be a finite number above 0
grid=around grid.centre=abc | grid.centre=abc: must be a finite number above 0
grid=around grid.centre=inf | grid.centre=inf: must be a finite number above 0
grid=around grid.centre=null | grid.centre=None: must be a finite number above 0
grid=around grid.each_side=400 | grid.each_side=400: must be an integer from 0 to 300, in decades
grid=window grid.window.product=0 | grid.window.product=0: must be a finite number above 0
grid=window grid.window.product=abc | grid.window.product=abc: must be a finite number above 0
grid=window grid.window.decades=1.5 | grid.window.decades=1.5: must be an integer from 1 to 300
grid=window grid.window=null | grid.lambdas=None: must list at least one lambda
grid=window grid.window=5 | grid.window=5: must have the keys product and decades
grid=window method=l2 | grid=window: l2 has no Fisher whose trace could place a window
iterations=-5 | iterations=-5: must be an integer from 1 to 10000000, or a list of one for each task
iterations=1.5 | iterations=1.5: must be an integer from 1 to 10000000, or a list of one for each task
iterations=null | iterations=None: must be an integer from 1 to 10000000, or a list of one for each task
iterations=[] | iterations=[]: must be one number, or one for each of the benchmark.n_tasks=5 tasks
iterations=[10] | iterations=[10]: must be one number, or one for each of the benchmark.n_tasks=5 tasks
iterations=[10,null,10,10,10] | iterations=[10, None, 10, 10, 10]: must be an integer from 1 to 10000000, or a list
iterations=true | iterations=True: must be an integer from 1 to 10000000, or a list of one for each task
iterations={a:1} | iterations={'a': 1}: must be a number, a list of them, or {epochs: a number or a list}
batch_size=-1 | batch_size=-1: must be an integer from 1 to 10000000
batch_size=1.5 | Value '1.5' of type 'float' could not be converted to Integer
batch_size=null | field 'batch_size' is not Optional
batch_size=all | Value 'all' of type 'str' could not be converted to Integer
batch_size=100000 | batch_size=100000: must be at most the 272 examples of task 0 of seed 1
batch_size=[32] | Value '[32]' of type 'list' could not be converted to Integer
val_fraction=0 | val_fraction=0.0: must be between 0 and 1, or null for no validation rows
val_fraction=1 | val_fraction=1.0: must be between 0 and 1, or null for no validation rows
val_fraction=-0.1 | val_fraction=-0.1: must be between 0 and 1, or null for no validation rows
val_fraction=abc | Value 'abc' of type 'str' could not be converted to Float
val_fraction=nan | val_fraction=nan: must be between 0 and 1, or null for no validation rows
val_fraction=[0.1] | Value '[0.1]' of type 'list' could not be converted to Float
save=all | save=all: must be one of weights, weights_of_tasks, or null for no weights
time_budget=-1 | time_budget=-1.0: must be a number of seconds above 0, or null for no end
time_budget=0 | time_budget=0.0: must be a number of seconds above 0, or null for no end
time_budget=nan | time_budget=nan: must be a number of seconds above 0, or null for no end
time_budget=inf | time_budget=inf: must be a number of seconds above 0, or null for no end
time_budget=5min | Value '5min' of type 'str' could not be converted to Float
device=gpu | device=gpu: must be auto, cpu, cuda or cuda:<index>
device=CUDA | device=CUDA: must be auto, cpu, cuda or cuda:<index>
device=cuda:-1 | device=cuda:-1: must be auto, cpu, cuda or cuda:<index>
device=mps | device=mps: must be auto, cpu, cuda or cuda:<index>
device=0 | device=0: must be auto, cpu, cuda or cuda:<index>
device=null | field 'device' is not Optional
device=[cpu] | Cannot convert 'list' to string: '['cpu']'
dtype=bfloat16 | dtype=bfloat16: must be one of float32, float64
dtype=double | dtype=double: must be one of float32, float64
dtype=null | field 'dtype' is not Optional
dtype=32 | dtype=32: must be one of float32, float64
tf32=yes_please | Value 'yes_please' is not a valid bool (type str)
tf32=null | field 'tf32' is not Optional
workers=-1 | workers=-1: must be auto or an integer from 1 to 10000000
workers=1.5 | workers=1.5: must be auto or an integer from 1 to 10000000
workers=many | workers=many: must be auto or an integer from 1 to 10000000
workers=null | workers=None: must be auto or an integer from 1 to 10000000
workers=[1] | workers=[1]: must be auto or an integer from 1 to 10000000
max_replicas=0 | max_replicas=0: must be auto or an integer from 1 to 10000000
max_replicas=-1 | max_replicas=-1: must be auto or an integer from 1 to 10000000
rows_per_pass=-1 | rows_per_pass=-1: must be auto or an integer from 1 to 10000000
rows_per_pass=1.5 | rows_per_pass=1.5: must be auto or an integer from 1 to 10000000
retry=never | retry=never: must be one of all, failed
retry=null | field 'retry' is not Optional
copy=two | Value 'two' of type 'str' could not be converted to Integer
copy=null | field 'copy' is not Optional
share_first_task=maybe | Value 'maybe' is not a valid bool (type str)
label=[a] | Cannot convert 'list' to string: '['a']'
label={a:1} | Cannot convert 'dict' to string: '{'a': 1}'
name= | name=: names a folder under results_dir, so it must be of letters, digits, _, - and .
name=null | field 'name' is not Optional
name=../x | name=../x: names a folder under results_dir, so it must be of letters, digits, _, - and .
name=figures | name=figures: must be none of bench, figures, ledger.csv, ledger.md, multirun, published, report, tables,
name=Tables | name=Tables: must be none of bench, figures, ledger.csv, ledger.md, multirun, published, report, tables,
name=published | name=published: must be none of bench, figures, ledger.csv, ledger.md, multirun, published, report,
name=multi suffix=run | name=multirun: must be none of bench, figures, ledger.csv, ledger.md, multirun, published,
name=report | name=report: must be none of bench, figures, ledger.csv, ledger.md, multirun, published, report, tables,
name=bench | name=bench: must be none of bench, figures, ledger.csv, ledger.md, multirun, published, report, tables,
name=/abs | name=/abs: names a folder under results_dir, so it must be of letters, digits, _, - and .
name=.hidden | name=.hidden: names a folder under results_dir, so it must be of letters, digits, _, - and .
name=[a] | Cannot convert 'list' to string: '['a']'
suffix=null | field 'suffix' is not Optional
suffix=/ | suffix=/: names a folder under results_dir, so it must be of letters, digits, _, - and .
results_dir=null | field 'results_dir' is not Optional
results_dir=[a] | Cannot convert 'list' to string: '['a']'
data_dir=null benchmark=split_mnist | field 'data_dir' is not Optional
data_dir= benchmark=split_mnist | MNIST not found: looked for
data_dir=[a] | Cannot convert 'list' to string: '['a']'
benchmark.n_tasks=0 | benchmark.n_tasks=0: must divide the 10 classes of digits: one of 1, 2, 5, 10
benchmark.n_tasks=-2 | benchmark.n_tasks=-2: must divide the 10 classes of digits: one of 1, 2, 5, 10
benchmark.n_tasks=2.5 | benchmark.n_tasks=2.5: must be of type int
benchmark.n_tasks=null | benchmark.n_tasks=None: must be of type int
benchmark.n_tasks=five | benchmark.n_tasks=five: must be of type int
benchmark.scale=-1 | benchmark.scale=-1: must be a finite number above 0
benchmark.scale=nan | benchmark.scale=nan: must be a finite number
benchmark.scale=abc | benchmark.scale=abc: must be of type float
benchmark.train_per_task=0 | benchmark.train_per_task=0: must be an integer from 1 to 264, the training rows of the
benchmark.train_per_task=-3 | benchmark.train_per_task=-3: must be an integer from 1 to 264, the training rows of the
benchmark.train_per_task=1.5 | benchmark.train_per_task=1.5: must be of type int | None
benchmark.test_per_task=0 | benchmark.test_per_task=0: must be an integer from 1 to 87, the test rows of the smallest
benchmark.test_per_task=100000 | benchmark.test_per_task=100000: must be an integer from 1 to 87, the test rows of
benchmark.dataset=MNIST | dataset=MNIST: unknown data set
benchmark.dataset=null | benchmark.dataset=None: must be of type str
benchmark.dataset=3 | benchmark.dataset=3: must be of type str
benchmark=permuted_mnist benchmark.n_tasks=0 | benchmark.n_tasks=0: must be an integer of at least 1
benchmark.name=null | benchmark.name=None: must be text
benchmark.name=3 | benchmark.name=3: must be text
model.hidden=[-5] | model.hidden=[-5]: must list layer sizes of at least 1
model.hidden=[1.5] | model.hidden=[1.5]: must be of type Sequence[int]
model.hidden=100 | model.hidden=100: must be of type Sequence[int]
model.hidden=[100,abc] | model.hidden=[100, 'abc']: must be of type Sequence[int]
model.hidden=null | model.hidden=None: must be of type Sequence[int]
model.hidden=[[3]] | model.hidden=[[3]]: must be of type Sequence[int]
model.activation=tanh | unknown key model.activation
model=slim_resnet18 | model=slim_resnet18: needs images [colours, height, width], not [8, 8]
model=vgg | model=vgg: needs images [colours, height, width], not [8, 8]
model=keras_cnn | model=keras_cnn: needs images [colours, height, width], not [8, 8]
model=progressive | model=progressive with optim=adam: needs an optimiser that is reset for every task and has no
optim.lr=-0.1 | optim=adam: Invalid learning rate: -0.1
optim.lr=nan | optim.lr=nan: must be a finite number
optim.lr=inf | optim.lr=inf: must be a finite number
optim.lr=null | optim.lr=None: must be of type float | torch.Tensor
optim.lr=[0.1] | optim.lr=[0.1]: must be of type float | torch.Tensor
optim.lr=1e400 | optim.lr=inf: must be a finite number
optim.reset=null | optim.reset=None: must be true or false
optim.momentum=0.9 | unknown key optim.momentum
optim.betas=[0.9] | optim.betas=[0.9]: must be of type tuple[float | torch.Tensor, float | torch.Tensor]
optim.betas=[2,3] | optim=adam: Invalid beta parameter at index 0: 2
optim.betas=abc | optim.betas=abc: must be of type tuple[float | torch.Tensor, float | torch.Tensor]
optim=sgd optim.momentum=-1 | optim=sgd: Invalid momentum value: -1
optim=sgd_momentum optim.momentum=abc | optim.momentum=abc: must be of type float
optim.weight_decay=-1 | unknown key optim.weight_decay
optim.eps=-1 | optim=adam: Invalid epsilon value: -1
method=si method.xi=-1 | method.xi=-1: must be a finite number above 0
method=si method.xi=nan | method.xi=nan: must be a finite number
method.gamma=-0.5 | method.gamma=-0.5: must be from 0 to 1
method.gamma=nan | method.gamma=nan: must be a finite number
method.gamma=null | method.gamma=None: must be of type float
method.lam=5 | unknown key method.lam
method=lwf method.temperature=0 | method.temperature=0: must be a finite number above 0
method=replay method.memory.size=-1 | method.memory.size=-1: must be at least 0, in examples
method=replay method.memory.size=1.5 | method.memory.size=1.5: must be of type int
method=replay method.memory.size=null | method.memory.size=None: must be of type int
method=replay method.memory=null | method.memory=None: must be of type cl_repro.memory.Memory
method=replay method.memory=ring | method.memory=ring: must be of type cl_repro.memory.Memory
method=replay memory=ring | memory@method.memory=: this method has no such memory
method=replay method.loss=mean | method.loss=mean: must be one of balanced, equal, union
method=der method.beta=-1 | method.beta=-1: must be a finite number of at least 0
method=gpm method.threshold=0 | method.threshold=0: must be above 0 and at most 1
method=gpm method.threshold=97 | method.threshold=97: must be above 0 and at most 1
method=gpm optim=adam | method=gpm with optim=adam: needs SGD without weight decay, with momentum only where it is
method=gpm optim=sgd method.n=100000 | method.n=100000: must be at most the 272 examples of task 0 of seed 1
method=gpm optim=sgd method.n=0 | method.increase=0.003 with method.n=0: must be at least 0, and at least 1 example
method=ogd optim=sgd method.n=-1 | method.n=-1: must be at least 0, in examples
method=sos method.beta2=2 | method.beta2=2: must be at least 0 and below 1
method=context method.n=0 | method.window=1000 with method.n=0: must be at least 1, in examples
method=la_maml method.slices=0 optim=sgd | method.slices=0: must be at least 1
method=la_maml | method=la_maml with optim=adam: its steps are its own, and need SGD that takes them as they are
method=la_maml optim=sgd | method=la_maml with optim=sgd: its steps are its own, and need SGD that takes them
method=joint fisher=exact | fisher=: this method uses no Fisher
fisher.n=-1 | fisher.n=-1: the number of examples must be at least 1, or null for all
fisher.n=all | fisher.n=all: must be of type int | None
fisher.n=nan | fisher.n=nan: must be a finite number
fisher.n=[500] | fisher.n=[500]: must be of type int | None
fisher=batched fisher.batch_size=-1 | fisher.batch_size=-1: must be at least 1
fisher=batched fisher.batch_size=null | fisher.batch_size=None: must be of type int
fisher=batched fisher.batch_size=1.5 | fisher.batch_size=1.5: must be of type int
fisher=batched fisher.reduction=none | fisher.reduction=none: must be mean or sum
fisher.labels=true | unknown key fisher.labels
fisher=one_sample/exact fisher.n=0 | fisher.n=0: the number of examples must be at least 1, or null for all
fisher=one_sample | Could not find 'fisher/one_sample' Available options in 'fisher':
fisher=batched/exact | Could not find 'fisher/batched/exact' Available options in 'fisher':
~fisher | ~fisher: a method that uses a Fisher cannot go without
fisher=null | Could not find 'fisher/null' Available options in 'fisher':
scenario=class model=progressive | model=progressive: needs scenario=task and columns=n_tasks, one for each task
scenario.name=null | scenario.name=None: must be text
study=split_mnist | Could not find 'study/split_mnist' Available options in 'study':
study=split_digits_fisher method=si | method=: this study lists its arms, which choose it
study=split_digits_fisher fisher=exact | fisher=: this study lists its arms, which choose it
study=split_digits_fisher lam=3 | lam=3: this grid has lambdas of its own
study=split_digits_fisher seeds=[] | seeds=[]: must list at least one seed
study=split_digits_fisher grid.lambdas=[0,-1] | lambda=-1: must be a finite number of at least 0
arms=[{method:ewc,lr:0.1}] | arm method=ewc, lr=0.1: unknown key lr
arms=[{method:ewc,hydra/launcher:slurm}] | arms: hydra/launcher is one for all arms of a study: set it beside arms,
arms=[ewc,si] | arms=ewc: no arm has this name; choose of ewc-exact
arms=[ewc-exact,{method:si}] | arms=['ewc-exact', {'method': 'si'}]: must be a list of choices such as [{method:
arms=[{method:ewc,seeds:[]}] | seeds=[]: must list at least one seed
arms=[{method:ewc,device:cuda}] | arms: device is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,name:other}] | arms: name is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,results_dir:x}] | arms: results_dir is one for all arms of a study: set it beside arms, not in one
arms=[{method:ewc,workers:2}] | arms: workers is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,time_budget:-1}] | arms: time_budget is one for all arms of a study: set it beside arms, not in one
arms=[{method:ewc,data_dir:x}] | arms: data_dir is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,+workers:2}] | arms: workers is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,++name:x}] | arms: name is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,+hydra/launcher:slurm}] | arms: hydra/launcher is one for all arms of a study: set it beside arms,
arms=[{method:ewc,retry:failed}] | arms: retry is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,copy:2}] | arms: copy is one for all arms of a study: set it beside arms, not in one of them
arms=[{method:ewc,lam:-1}] | lambda=-1.0: must be a finite number of at least 0
arms=[{method:ewc,arms:[]}] | arms=[{'method': 'ewc', 'arms': []}]: must be a list of choices such as [{method:
arms=[{for_each:{scenario:[task]}}] | arms: {'for_each': {'scenario': ['task']}}: must be {for_each: {key: [choice,
arms=[{for_each:{scenario:task},arms:[{method:ewc}]}] | arms: {'for_each': {'scenario': 'task'}, 'arms': [{'method':
arms=[{for_each:{scenario:[[task]]},arms:[{method:ewc}]}] | arms: {'for_each': {'scenario': [['task']]}, 'arms':
arms=[{for_each:{scenario:[task]},arms:[ewc]}] | arms: {'for_each': {'scenario': ['task']}, 'arms': ['ewc']}: must be
arms=[{for_each:{scenario:[task]},arms:[{lam:{class:1}}]}] | arms=[{'scenario': 'task', 'lam': {'class': 1}}]: must be a
arms=[{for_each:{scenario:[]},arms:[{method:ewc}]}] | arms=[]: must be a list of choices such as
arms=[{}] | arms=[{}]: must be a list of choices such as [{method: finetune}, {method: ewc, fisher: exact}]
arms=[null] | arms=[None]: must be a list of choices such as [{method: finetune}, {method: ewc, fisher:
arms={method:ewc} | arms={'method': 'ewc'}: must be a list of choices such as [{method: finetune}, {method: ewc,
arms=ewc | arms=ewc: must be a list of choices such as [{method: finetune}, {method: ewc, fisher: exact}]
arms=[{study:split_digits_fisher}] | arms: study is one for all arms of a study: set it beside arms, not in one of
study=split_digits_fisher analysis.title=mine | analysis.title=: figures and tables read it in the study's
+analysis.kind=5 | analysis.kind=: figures and tables read it in the study's file
arms=[{method:ewc,scale:smoke}] | arms: scale is one for all arms of a study: set it beside arms, not in one of them
+foo=1 | foo: unknown key
++lam=-1 | lambda=-1.0: must be a finite number of at least 0
~lam | Interpolation key 'lam' not found
~method | method.name: missing
~seeds | seeds: missing
~benchmark | Interpolation key 'benchmark.protocol.seeds.cpu' not found
lam==5 | Error parsing override 'lam==5' extraneous input '=' expecting {<EOF>, ':', BRACKET_OPEN,
lam | Error parsing override 'lam' missing EQUAL at '<EOF>' See
=5 | unknown key 
lam=${x} | Interpolation key 'x' not found
lam=${oc.env:NOPE} | KeyError raised while resolving interpolation: "Environment variable 'NOPE' not found"
lam=1,10 | Value 'ChoiceSweep(tags=set(), list=[1, 10], simple_form=True, shuffle=False)' of type
seeds=range(1,4) | Invalid value assigned: RangeSweep is not a ListConfig, list or tuple.
"""
RULES = [tuple(line.split(" | ", 1)) for line in TYPED.strip().splitlines()]

CLI = [
    Case("value", "cli", "each_side", ["grid=around", "grid.each_side=-1"],
         ["grid.each_side=-1: must be an integer from 0 to 300, in decades"]),
    Case("value", "cli", "each_side_of", ["grid=around", "grid.each_side=many"],
         ["grid.each_side=many: must be an integer from 0 to 300, in decades"]),
    Case("pair", "cli", "launcher", ["hydra/launcher=workstation"], ["a launcher starts the jobs of a sweep"]),
    Case("pair", "cli", "launcher_of_status", ["status", "hydra/launcher=slurm"],
         ["hydra/launcher=: a launcher starts the jobs of a sweep, `python -m cl_repro -m`; leave it out"]),
    Case("pair", "cli", "launcher_of_plan", ["plan", "hydra.launcher.n_jobs=2"], ["hydra.launcher.n_jobs=: a la"]),
    Case("pair", "cli", "launcher_of_a_script", ["measure.py", "idea", "hydra/launcher=local"],
         ["hydra/launcher=: a launcher"]),
    Case("key", "cli", "status", ["status", "speed=3"], ["unknown key speed; allowed: allow_targets, analysis"]),
    Case("key", "cli", "plan", ["plan", "speed=3"], ["unknown key speed; allowed: allow_targets, analysis"]),
    Case("key", "cli", "option", ["--resume"], ["unrecognized arguments: --resume"], lines=None),
    Case("key", "cli", "script", ["table.py", "--resutls-dir", "results"],
         ["table.py: unrecognized arguments: --resutls-dir"]),
    Case("key", "cli", "measure", ["measure.py", "anatomi", "seeds=[1]"],
         ["measure.py: anatomi: must be one of anatomy, unifying, idea, strength_search"]),
    Case("value", "cli", "status", ["status", "lam=-1"], ["lambda=-1.0: must be a finite number of at least 0"]),
    Case("value", "cli", "plan", ["plan", "lam=-1"], ["lambda=-1.0: must be a finite number of at least 0"]),
    Case("value", "cli", "status_choice", ["status", "method=foo"], ["Could not find 'method/foo'"]),
    Case("value", "cli", "table", ["table.py", "nope"], ["no results at", f"nope (there: runs, {STUDY})"]),
    Case("value", "cli", "prepare_data", ["prepare_data.py", "digits", "mnits", "--data-dir", "data"],
         ["dataset=mnits: unknown data set; allowed: digits, mnist"]),
    Case("value", "cli", "bench", ["bench.py", "--rounds", "0"],
         ["argument --rounds: 0: must be an integer of at least 1"], lines=None),
    Case("file", "cli", "results_dir", ["results_dir=a_file"], ["a_file: must be a folder, is a file"]),
    Case("file", "cli", "results_dir_status", ["status", "results_dir=a_file"], ["a_file: must be a folder"]),
    Case("file", "cli", "results_dir_plan", ["plan", "results_dir=a_file"], ["a_file: must be a folder"]),
    Case("file", "cli", "data_dir", ["benchmark=split_mnist", "data_dir=a_file"],
         ["MNIST not found: looked for", "a_file/mnist.npz"]),
    Case("file", "cli", "table", ["table.py", f"{STUDY}/runs.csv"], ["runs.csv: must be a folder in results; "]),
    Case("folder", "cli", "elsewhere", ["plot.py", "/proc/self"], ["/proc/self: must be a folder in results; "]),
    Case("folder", "cli", "export_elsewhere", ["export", "--to", "wandb", "/proc/self"], ["/proc/self: must be a f"]),
    Case("file", "cli", "out", [*TABLE, "--out", "a_file"], ["a_file: must be a folder, is a file"]),
    Case("file", "cli", "bench_out", ["bench.py", "--out", "a_file/bench"], ["a_file: must be a folder"]),
    Case("file", "cli", "prepare_data", ["prepare_data.py", "mnist", "--data-dir", "a_file"],
         ["a_file: must be a folder, is a file"]),
    Case("folder", "cli", "below_a_file", ["results_dir=a_file/x"], ["a_file: must be a folder, is a file"]),
    Case("folder", "cli", "results_dir_not_writable", ["results_dir=/proc/none"],
         ["/proc/none/runs: results cannot be written here: "]),
    Case("folder", "cli", "sweep_below_a_file", ["-m", "results_dir=a_file/x"], ["a_file: must be a folder"]),
    Case("folder", "cli", "sweep_not_writable", ["-m", "results_dir=/proc/none"],
         ["/proc/none", ": results cannot be written here: "]),
    Case("folder", "cli", "sweep_too_long", ["-m", f"results_dir={LONG}"], ["cannot be a folder: File name too long"]),
    Case("folder", "cli", "joblib_not_writable", ["-m", "hydra/launcher=workstation", "results_dir=/proc/none"],
         ["/proc/none", ": results cannot be written here: "]),
    Case("folder", "cli", "results_dir_too_long", [f"results_dir={LONG}"], ["cannot be a folder: File name too long"]),
    Case("folder", "cli", "status_too_long", ["status", f"results_dir={LONG}"], ["File name too long"]),
    Case("folder", "cli", "data_dir_missing", ["benchmark=split_mnist", "data_dir=nowhere"],
         ["MNIST not found: looked for", "nowhere/mnist.npz", "run `make data`"]),
    Case("folder", "cli", "data_dir_too_long", ["benchmark=split_mnist", f"data_dir={LONG}"],
         ["cannot be read: File name too long"]),
    Case("folder", "cli", "table_results_dir", ["table.py", "--results-dir", "nowhere"],
         ["table.py: argument --results-dir: nowhere: must be a folder that is there"]),
    Case("folder", "cli", "ledger_results_dir", ["ledger.py", "--results-dir", "nowhere", "--check"],
         ["ledger.py: argument --results-dir: nowhere: must be a folder that is there"]),
    Case("folder", "cli", "ledger_of_nothing", ["ledger.py", "--results-dir", "nowhere"],
         ["ledger.py: argument --results-dir: nowhere: must be a folder that is there"]),
    Case("folder", "cli", "bench_not_writable", ["bench.py", "--out", "/proc/none"],
         ["/proc/none: cannot be made: No such file or directory"]),
    Case("key", "cli", "gpu", ["gpu.py", "nope"], ["gpu.py: unrecognized arguments: nope"]),
    Case("value", "cli", "gpu", ["gpu.py", "--budget=nan"], ["--budget=nan: must be a number of seconds above 0"]),
    Case("folder", "cli", "out_not_writable", [*TABLE, "--out", "/proc/none"], ["/proc/none/", "cannot be written: "]),
    Case("folder", "cli", "figures_not_writable", ["plot.py", STUDY, "--out", "/proc/none"],
         ["/proc/none/", "cannot be written: "]),
    Case("pair", "cli", "device_and_machine", ["device=cuda"], ["device=cuda: torch sees no CUDA device"], no_cuda),
    Case("pair", "cli", "status_lam_and_grid", ["status", "lam=5", "grid=blog"], ["lam=5: this grid has"]),
    Case("pair", "cli", "figure_and_runs", ["plot.py", STUDY, "runs"], ["results/runs: no figures are made of it"]),
]  # fmt: skip

DATA = [
    Case("key", "data", "array_left_out", MNIST, ["mnist.npz: no array 'y_test'; it must hold x_train, y_train,"],
         npz(y_test=None)),
    Case("value", "data", "floats", MNIST, ["x_train is float64, must be uint8"],
         npz(x_train=np.full((120, 28, 28), 0.5))),
    Case("value", "data", "four_terabytes", MNIST, ["mnist.npz: cannot be read (", "move it away and run `make data`"],
         four_terabytes),
    Case("value", "data", "one_label", MNIST, ["mnist.npz: not the real mnist: checksum", "run `make data`"],
         npz(y_test=np.zeros(100, int))),
    Case("value", "data", "idx_magic", MNIST, ["train-labels-idx1-ubyte: cannot be read (magic 0x00000901"],
         raw(flip("data/MNIST/raw/train-labels-idx1-ubyte", 2))),
    Case("file", "data", "missing", MNIST, ["MNIST not found: looked for"], remove("data/mnist.npz")),
    Case("file", "data", "cut", MNIST, ["mnist.npz: cannot be read (", "move it away and run `make data`"],
         cut("data/mnist.npz")),
    Case("file", "data", "cut_plan", MNIST[1:], ["mnist.npz: cannot be read ("], cut("data/mnist.npz")),
    Case("file", "data", "cut_prepare", ["prepare_data.py", "mnist", "--data-dir", "data"],
         ["mnist.npz: cannot be read ("], cut("data/mnist.npz")),
    Case("file", "data", "empty", MNIST, ["mnist.npz: cannot be read ("], cut("data/mnist.npz", 0)),
    Case("file", "data", "bit_flipped", MNIST, ["mnist.npz: "], flip("data/mnist.npz", 1000)),
    Case("file", "data", "other_format", MNIST, ["mnist.npz: cannot be read ("], write("data/mnist.npz", "<html>")),
    Case("file", "data", "unreadable", MNIST, ["mnist.npz: cannot be read ("], unreadable("data/mnist.npz")),
    Case("file", "data", "is_a_folder", MNIST, ["MNIST not found"], folder_in_the_place_of("data/mnist.npz")),
    Case("file", "data", "idx_cut", MNIST, ["t10k-images-idx3-ubyte: cannot be read (truncated: "],
         raw(cut("data/MNIST/raw/t10k-images-idx3-ubyte"))),
    Case("file", "data", "idx_missing", MNIST, ["MNIST not found", "t10k-images-idx3-ubyte"],
         raw(remove("data/MNIST/raw/t10k-images-idx3-ubyte"))),
    Case("folder", "data", "missing", MNIST, ["MNIST not found: looked for", "say where it is"], remove("data")),
    Case("folder", "data", "is_a_file", MNIST, ["MNIST not found"], file_in_the_place_of("data")),
    Case("folder", "data", "raw_is_a_file", MNIST, ["MNIST not found: looked for"],
         raw(file_in_the_place_of("data/MNIST/raw"))),
    Case("pair", "data", "lengths", MNIST, ["mnist.npz: y_train has shape [99], must be [120], a label for each image"],
         npz(y_train=np.zeros(99, int))),
    Case("pair", "data", "train_as_test", MNIST, ["MNIST/raw: not the real mnist: checksum"],
         raw(lambda work: shutil.copy(work / "data/MNIST/raw/train-labels-idx1-ubyte",
                                      work / "data/MNIST/raw/t10k-labels-idx1-ubyte"))),
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
    Case("key", "results", "ledger", ["ledger.py", "--check"], ["ledger.csv: column 'benchmark' is missing"],
         write("results/ledger.csv", "study,source\n")),
    Case("value", "results", "edited", [OURS], ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "edited_status", STATUS, ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "edited_plan", ["plan", OURS], ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "edited_table", TABLE, ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "edited_ledger", ["ledger.py"], ["runs.csv: edited since the run wrote it"],
         change(RUNS, ",0.97", ",0.98")),
    Case("value", "results", "schema", [OURS], ["written with schema version 99, this code has 1"],
         provenance(schema_version=99)),
    Case("value", "results", "schema_figure", ["plot.py", STUDY], ["schema_version 99, but this code"],
         provenance(schema_version=99)),
    Case("value", "results", "impossible", TABLE, ["accuracy = 97.0 must be a fraction in [0, 1]"],
         rewrite("runs.csv", ",0.97,", ",97.0,")),
    Case("file", "results", "cut", [OURS], ["runs.csv: edited since the run wrote it"], cut(RUNS)),
    Case("file", "results", "cut_table", TABLE, ["runs.csv: edited since the run wrote it", "cut short"], cut(RUNS)),
    Case("file", "results", "missing", [OURS], ["runs.csv: missing, though provenance.json knows it"], remove(RUNS)),
    Case("file", "results", "is_a_folder", STATUS, ["runs.csv: cannot be read: Is a directory"],
         folder_in_the_place_of(RUNS)),
    Case("file", "results", "provenance_cut", [OURS], ["provenance.json: not readable as provenance"], cut(PROVENANCE)),
    Case("file", "results", "provenance_cut_table", TABLE, ["provenance.json: unreadable or cut short"],
         cut(PROVENANCE)),
    Case("file", "results", "provenance_missing", STATUS, ["unverified: there is no provenance.json"],
         remove(PROVENANCE)),
    Case("file", "results", "provenance_is_a_folder", TABLE, ["provenance.json: unreadable or cut short"],
         folder_in_the_place_of(PROVENANCE)),
    Case("file", "results", "failure_cut", STATUS, ["failed/x.json: truncated or edited; remove it"],
         write(f"results/{STUDY}/failed/x.json", "{")),
    Case("file", "results", "ledger_missing", ["ledger.py", "--check"], ["no ledger at", "with `make ledger` first"]),
    Case("folder", "results", "is_a_file", ["seeds=[1]"], ["results: must be a folder, is a file"],
         file_in_the_place_of("results")),
    Case("folder", "results", "is_a_file_status", STATUS, ["results: must be a folder, is a file"],
         file_in_the_place_of("results")),
    Case("folder", "results", "study_is_a_file", [OURS], ["must be a folder, is a file"],
         file_in_the_place_of(f"results/{STUDY}")),
    Case("folder", "results", "study_is_a_file_table", TABLE, ["no results at", f"{STUDY} (there: runs)"],
         file_in_the_place_of(f"results/{STUDY}")),
    Case("folder", "results", "spool_is_a_file", [OURS], [f"{STUDY}: results cannot be written here: File exists"],
         file_in_the_place_of(f"results/{STUDY}/.spool")),
    Case("folder", "results", "is_a_file_window", ["grid=window"], ["results: must be a folder, is a file"],
         file_in_the_place_of("results")),
    Case("folder", "results", "without_runs", TABLE, ["no results at", f"{STUDY} (there: runs)"],
         lambda work: [path.unlink() for path in (work / "results" / STUDY).iterdir() if path.is_file()]),
    Case("folder", "results", "empty", ["plot.py"], ["no results under results: run `make reproduce` first"],
         lambda work: (remove("results")(work), (work / "results").mkdir())),
    Case("pair", "results", "runs_and_provenance", [OURS], ["runs.csv: edited since the run wrote it"],
         exchange("runs.csv")),
    Case("pair", "results", "runs_and_provenance_table", TABLE, ["runs.csv: edited since the run wrote it"],
         exchange("runs.csv")),
    Case("pair", "results", "accuracy_and_runs", STATUS, ["accuracy.csv: edited since the run wrote it"],
         exchange("accuracy.csv")),
    Case("pair", "results", "twice_a_run", TABLE, ["runs.csv: run_id", "occurs twice: the file has been edited"],
         lambda work: rewrite("runs.csv", last := (work / RUNS).read_text().splitlines(True)[-1], last * 2)(work)),
    Case("pair", "results", "good_and_damaged", ["table.py", STUDY, "runs"],
         ["results/runs/runs.csv: edited since the run wrote it"], change("results/runs/runs.csv", ",0.9", ",0.8")),
]  # fmt: skip

SCRIPTS = [
    case
    for name in ("plot.py", "table.py", "report.py")
    for case in (
        Case("folder", "cli", f"nowhere_{name}", [name, "--results-dir", "nowhere"],
             [f"{name}: argument --results-dir: nowhere: must be a folder that is there"]),
        Case("key", "cli", f"option_{name}", [name, "--nope"], [f"{name}: unrecognized arguments: --nope"]),
        Case("value", "cli", f"name_{name}", [name, "nope"], ["nope"]),
    )
]  # fmt: skip
TABLE_OF_CASES = CONFIG + CLI + DATA + RESULTS + SCRIPTS


# --- the folder in which they run ------------------------------------------------------------------------------------


def put(folder: Path, rows: list[dict]) -> None:
    """Results as a run leaves them; without the spool, which belongs to one machine."""
    accuracy = [
        dict(zip(TABLES["accuracy.csv"], (row["run_id"], "test", 4, k, row["accuracy"]), strict=True))
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
    [pytest.param(case, id=f"{case.kind}-{case.place}-{case.name}") for case in TABLE_OF_CASES],
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


def test_every_cell_has_a_case() -> None:
    assert {(c.kind, c.place) for c in TABLE_OF_CASES} == {(k, p) for k in KINDS for p in PLACES}
    assert len(RULES) + len(TABLE_OF_CASES) > 400 and len(dict(RULES)) == len(RULES)


GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}


@lru_cache
def chosen(choices: tuple[str, ...]) -> DictConfig:
    """What choices of groups compose, of which all cases that make them share one."""
    return COMPOSE("config", overrides=list(choices))


COMPOSE = hydra.compose


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """`hydra.compose`: the groups once for all cases, then the values, as Hydra sets them."""
    choices = tuple(one for one in overrides if re.split("[=@]", one)[0].lstrip("+~") in GROUPS)
    cfg = deepcopy(chosen(choices))
    values = OverridesParser.create().parse_overrides([one for one in overrides if one not in choices])
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every refused command leaves empty."""
    return tmp_path_factory.mktemp("empty")


def words(typed: str) -> list[str]:
    """A command line's, as a shell would cut it if lists and mappings were quoted."""
    return re.findall(r"(?:[^\s\[{]|\[[^\]]*\]+|\{[^}]*\})+", typed)


@pytest.mark.parametrize(("typed", "says"), RULES, ids=[typed for typed, _ in RULES])
def test_what_is_typed(
    typed: str, says: str, empty: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hydra.compose", composed)
    assert cli.run(monkeypatch, empty, "plan", *words(typed)) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert (out, [*empty.iterdir()]) == ("", [])


TYPED_TWICE = ["method=ewcc", "lam=abc", "optim.lr=inf", "arms=[{method:ewc,name:other}]", "batch_size=5000", "+foo=1"]


@pytest.mark.parametrize("typed", TYPED_TWICE)
@pytest.mark.parametrize("command", [[], ["plan"], ["status"]], ids=["run", "plan", "status"])
def test_it_is_the_same_without_the_short_cut(
    typed: str,
    command: list[str],
    empty: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if command == ["status"] and typed in ("optim.lr=inf", "batch_size=5000"):
        assert cli.run(monkeypatch, empty, *command, typed) == 0  # nothing is built to look
        return
    assert cli.run(monkeypatch, empty, *command, typed) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert dict(RULES)[typed] in line
    assert not [*empty.iterdir()]


def test_what_the_cases_spoil_is_fine_as_it_is(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in (STUDY, "runs"):
        Store(work / "results" / name)
    assert run(monkeypatch, work, STATUS) == 0
    assert run(monkeypatch, work, TABLE) == 0
    assert run(monkeypatch, work, [*MNIST[1:], "seeds=[1]", "iterations=1", "fisher.n=8", "workers=1"]) == 0
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


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["lam=abc", "batch_size=5000"])
def test_a_process_of_its_own_says_the_same(typed: str, empty: Path) -> None:
    done = shell(empty, f"$PY -m cl_repro {typed}")
    assert (done.returncode, done.stdout, [*empty.iterdir()]) == (2, "", [])
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and dict(RULES)[typed] in line


@pytest.mark.parametrize(
    "command",
    [
        f"$PY {cli.ROOT}/scripts/table.py --show",
        pytest.param("$PY -m cl_repro seeds=[1] iterations=1 workers=1", marks=pytest.mark.slow),
        pytest.param("$PY -m cl_repro status", marks=pytest.mark.slow),
        pytest.param(f"$PY {cli.ROOT}/scripts/ledger.py", marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_goes_away_ends_it_without_a_word(command: str, work: Path) -> None:
    done = shell(work, f"{command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)  # by whether it came to write; 1 is rich's


def test_who_closes_standard_output_reads_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `>&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    with errors.entry_point():
        assert not errors.not_read()


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
