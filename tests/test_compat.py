"""`fisher=compat/...` against a library's own loop, written out; the lambda of the same penalty elsewhere."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cli
import pytest
import torch
from made_passes import ALL_TEN, SEED, TWO_OF_TEN, Pass, made_pass
from made_trees import error
from torch import Tensor, nn
from torch.nn import functional

from cl_repro.common.errors import UserError
from cl_repro.engine import boundary
from cl_repro.importance.compat import compat
from cl_repro.study.code_bases import CODE_BASES, HALF
from cl_repro.study.config import CONF
from cl_repro.study.factories import build
from cl_repro.study.translate import Sizes, here, translate
from cl_repro.types import Estimator, Tree

B, EPOCHS, SAMPLES = 5, 3, 9  # mini-batch; epochs of the training that clarena counts; examples that ewc_pytorch draws
PRESETS = sorted(path.stem for path in (CONF / "fisher" / "compat").glob("*.yaml"))
CLIPPED = ("lamda_pilot", "libcontinual", "pycil")
CHANGES = {"ewc_pytorch": [f"fisher.n={SAMPLES}"], "capymoa": [f"fisher.n={SAMPLES}", f"fisher.batch_size={B}"]}
CHANGES |= {name: ["fisher.clip=0.001"] for name in CLIPPED}  # of 23 examples, some are clipped


@cache
def preset(library: str) -> Estimator:
    """The estimator of conf/fisher/compat."""
    (arm,) = cli.arms(f"fisher=compat/{library}", f"batch_size={B}", *CHANGES.get(library, ()))
    return build("fisher", arm["fisher"])


# --- the libraries' loops, one backward pass at a time ---------------------------------------------------------------


class Model(nn.Module):
    """The network of a pass as a module; what it returns are the logits of the task."""

    def __init__(self, of: Pass) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({name.replace(".", "-"): p.clone() for name, p in of.params.items()})
        self.names, self.net, self.active = list(of.params), of.net, of.active

    def forward(self, x: Tensor) -> Tensor:
        return self.net.apply({name: self.weights[name.replace(".", "-")] for name in self.names}, {}, x)[0][
            :, self.active
        ]

    def grads(self) -> Tree:
        return {name: self.weights[name.replace(".", "-")].grad.clone() for name in self.names}

    def descend(self, loss: Tensor) -> Tree:
        self.zero_grad()
        loss.backward()
        return self.grads()


def loader(of: Pass, size: int) -> list[tuple[Tensor, Tensor]]:
    """Batches as a DataLoader gives them: the last may be smaller."""
    return list(zip(of.x.split(size), of.y.split(size), strict=True))


def zeros(of: Pass) -> Tree:
    return {name: torch.zeros_like(p) for name, p in of.params.items()}


def avalanche(of: Pass, epochs: int = 1) -> Tree:
    """Avalanche, avalanche/training/plugins/ewc.py, EWCPlugin.compute_importances."""
    model, importances, batches = Model(of), zeros(of), loader(of, B)
    for x, y in batches:
        for name, g in model.descend(nn.CrossEntropyLoss()(model(x), y)).items():
            importances[name] += g**2
    return {name: value / len(batches) for name, value in importances.items()}


def capymoa(of: Pass, epochs: int = 1) -> Tree:
    """CapyMOA, src/capymoa/ocl/strategy/_ewc.py, fd_compute, of a buffer of so many examples."""
    model, diagonals, dataloader = Model(of), zeros(of), loader(of._replace(x=of.x[:SAMPLES], y=of.y[:SAMPLES]), B)
    for inputs, labels in dataloader:
        for name, g in model.descend(nn.CrossEntropyLoss()(model(inputs), labels)).items():
            diagonals[name].add_(g.pow(2))
    return {name: value / len(dataloader) for name, value in diagonals.items()}


def clarena(of: Pass, epochs: int = 1) -> Tree:
    """CLArena, clarena/cl_algorithms/ewc.py: training_step counts, on_train_end divides."""
    model, fisher, num_data = Model(of), zeros(of), 0
    for _ in range(epochs):
        for _, y in loader(of, B):
            num_data += len(y)
    for x, y in loader(of, B):
        for name, g in model.descend(nn.CrossEntropyLoss()(model(x), y)).items():
            fisher[name] += len(y) * g**2
    return {name: value / num_data for name, value in fisher.items()}


def ewc_pytorch(of: Pass, epochs: int = 1) -> Tree:
    """ewc.pytorch, utils.py, EWC._diag_fisher, of a list of sampled examples."""
    model, precision, dataset = Model(of), zeros(of), list(of.x[:SAMPLES])
    for example in dataset:
        output = model(example[None]).view(1, -1)
        loss = functional.nll_loss(functional.log_softmax(output, dim=1), output.max(1)[1].view(-1))
        for name, g in model.descend(loss).items():
            precision[name] += g**2 / len(dataset)
    return precision


def facil(of: Pass, epochs: int = 1) -> Tree:
    """FACIL, src/approach/ewc.py, compute_fisher_matrix_diag, with fi_sampling_type=max_pred and all samples."""
    model, fisher, n_batches = Model(of), zeros(of), len(of.x) // B
    for x, _ in itertools.islice(loader(of, B), n_batches):
        outputs = model(x)
        for name, g in model.descend(functional.cross_entropy(outputs, outputs.argmax(1).flatten())).items():
            fisher[name] += g**2 * len(x)
    return {name: value / (n_batches * B) for name, value in fisher.items()}


def gt_ripl(of: Pass, epochs: int = 1, size: int = B) -> Tree:
    """GT-RIPL, agents/regularization.py, EWC.calculate_importance; `size` is 1 where n_fisher_sample is set."""
    model, importance, dataloader = Model(of), zeros(of), loader(of, size)
    for x, _ in dataloader:
        preds = model(x)
        for name, g in model.descend(nn.CrossEntropyLoss()(preds, preds.max(1)[1].flatten())).items():
            importance[name] += g**2 * len(x) / len(dataloader)
    return importance


def lamda_pilot(of: Pass, epochs: int = 1, fishermax: float = 1e-3) -> Tree:
    """LAMDA-PILOT, models/cofima.py, getFisherDiagonal (there fishermax is 1e-4)."""
    return pycil(of, fishermax=fishermax)


def libcontinual(of: Pass, epochs: int = 1, fishermax: float = 1e-3) -> Tree:
    """LibContinual, core/model/ewc.py, getFisher (there the number is 1e-4)."""
    return pycil(of, fishermax=fishermax)


def laplace_torch(of: Pass, epochs: int = 1) -> Tree:
    """laplace-torch, laplace/curvature/curvature.py, GGNInterface.diag: sum_n J' (diag(p) - p p') J."""
    model, total = Model(of), zeros(of)
    for example in of.x:
        p = model(example[None]).softmax(1)[0].detach()
        rows = [model.descend(model(example[None])[0, c]) for c in range(len(p))]
        for name in total:
            j = torch.stack([row[name] for row in rows])
            total[name] += torch.einsum("c...,c->...", j**2, p) - torch.einsum("c...,c->...", j, p) ** 2
    return total


def curvlinops(of: Pass, epochs: int = 1) -> Tree:
    """The same, of a mean loss: curvlinops, curvlinops/ggn.py, and nngeometry, nngeometry/metrics.py, FIM."""
    return {name: value / len(of.x) for name, value in laplace_torch(of).items()}


def mammoth(of: Pass, epochs: int = 1) -> Tree:
    """Mammoth, models/ewc_on.py, EwcOn.end_task."""
    model, fish, batches = Model(of), zeros(of), loader(of, B)
    for inputs, labels in batches:
        for example, label in zip(inputs, labels, strict=True):
            log_p = -functional.nll_loss(nn.LogSoftmax(dim=1)(model(example[None])), label[None], reduction="none")
            p = log_p.detach().exp().mean()
            for name, g in model.descend(log_p.mean()).items():
                fish[name] += p * g**2
    return {name: value / (len(batches) * B) for name, value in fish.items()}


def pycil(of: Pass, epochs: int = 1, fishermax: float = 1e-3) -> Tree:
    """PyCIL, models/ewc.py, getFisherDiagonal (there fishermax is 1e-4)."""
    model, fisher, batches = Model(of), zeros(of), loader(of, B)
    for x, y in batches:
        for name, g in model.descend(functional.cross_entropy(model(x), y)).items():
            fisher[name] += g.pow(2)
    return {name: torch.min(value / len(batches), value.new_tensor(fishermax)) for name, value in fisher.items()}


def reference(of: Pass, epochs: int = 1, labels: str = "all", n: int | None = None, size: int = 1) -> Tree:
    """The reference code, models/cl/continual_learner.py, estimate_fisher: it divides by the last `index`."""
    model, fisher, index = Model(of), zeros(of), 0
    for index, (x, y) in enumerate(loader(of, size)):
        if n is not None and index > n:
            break
        output = model(x)
        for label in range(output.shape[1]) if labels == "all" else (None,):
            target = y if label is None else torch.tensor([label])
            weight = 1.0 if label is None else output.softmax(1)[0, label].item()
            for name, g in model.descend(functional.cross_entropy(model(x), target)).items():
                fisher[name] += weight * g**2
    return {name: value / index for name, value in fisher.items()}


ORACLES: dict[str, Callable[..., Tree]] = {
    "avalanche": avalanche,
    "capymoa": capymoa,
    "clarena": clarena,
    "curvlinops": curvlinops,
    "ewc_pytorch": ewc_pytorch,
    "facil": facil,
    "gt_ripl": gt_ripl,
    "lamda_pilot": lamda_pilot,
    "laplace_torch": laplace_torch,
    "libcontinual": libcontinual,
    "mammoth": mammoth,
    "nngeometry": curvlinops,
    "pycil": pycil,
    "reference": reference,
}


def test_every_preset_has_a_loop() -> None:
    assert list(ORACLES) == PRESETS


@pytest.mark.parametrize("part", [TWO_OF_TEN, ALL_TEN])
@pytest.mark.parametrize("library", PRESETS)
@pytest.mark.parametrize("n", [20, 23])  # 23: the last of 5 batches has 3 examples
def test_a_preset_is_the_librarys_loop(library: str, part: str, n: int) -> None:
    of = made_pass(part, n=n)
    assert error(of.measure(preset(library)), ORACLES[library](of)) < 1e-12


def test_the_reference_stops_late_and_divides_by_its_last_index() -> None:
    of = made_pass()
    for n in (9, 21, 22, 23):
        assert error(of.measure(compat("all", "example", "last_index", n)), reference(of, n=n)) < 1e-12
    batches = compat("true", "batch", "last_index", batch_size=B)
    assert error(of.measure(batches), reference(of, labels="true", size=B)) < 1e-12


def test_pycil_clips_some_entries_and_not_all() -> None:
    of = made_pass()
    whole = torch.cat([value.flatten() for value in pycil(of, fishermax=float("inf")).values()])
    assert 0.01 < (whole > 1e-3).double().mean() < 0.5
    (arm,) = cli.arms("fisher=compat/pycil")
    assert arm["fisher"]["clip"] == 1e-4


def test_the_loops_tell_the_libraries_apart() -> None:
    of = made_pass(ALL_TEN)
    found = {name: oracle(of) for name, oracle in ORACLES.items()}
    alike = [{*CLIPPED}, {"curvlinops", "nngeometry"}]
    for a, b in itertools.permutations(found, 2):
        assert (error(found[a], found[b]) > 1e-2) != any({a, b} <= group for group in alike), (a, b)


@pytest.mark.parametrize("library", PRESETS)
def test_replicas_of_a_stack_are_measured_as_one_is(library: str) -> None:
    of = made_pass()
    stacked = {name: torch.stack([p, 0.5 * p]) for name, p in of.params.items()}
    both = boundary.estimate(of.experiment, stacked, {}, preset(library), SEED, of.task)
    half = of._replace(params={name: 0.5 * p for name, p in of.params.items()})
    for k, one in enumerate((of, half)):
        assert error({name: value[k] for name, value in both.items()}, one.measure(preset(library))) < 1e-12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"labels": "both"}, "fisher.labels=both: must be one of all, true, predicted"),
        ({"square": "sum"}, "fisher.square=sum: must be one of example, example_times_p, batch, batch_times_size"),
        ({"divisor": "N"}, "fisher.divisor=N: must be one of examples, batches, padded, full_batches, last_index, one"),
        ({"labels": "all", "square": "batch"}, "fisher.square=batch: must be example with fisher.labels=all"),
        ({"square": "batch"}, "fisher.batch_size=None: must be at least 1"),
        ({"divisor": "padded", "batch_size": 0}, "fisher.batch_size=0: must be at least 1"),
        (
            {"square": "batch", "batch_size": 4, "n": 8, "divisor": "last_index"},
            "fisher.n=8: must be null with fisher.square=batch and fisher.divisor=last_index",
        ),
        ({"square": "batch", "batch_size": 4, "n": 0, "divisor": "batches"}, "fisher.n=0: the number of examples"),
        ({"n": 0}, "fisher.n=0: the number of examples must be at least 1"),
        ({"clip": 0.0}, "fisher.clip=0.0: must be above 0"),
        ({"clip": float("nan")}, "fisher.clip=nan: must be above 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, says: str) -> None:
    with pytest.raises(UserError) as caught:
        compat(**({"labels": "true", "square": "example", "divisor": "examples"} | arguments))
    assert says in str(caught.value)


# --- translation -----------------------------------------------------------------------------------------------------


def move(of: Pass) -> Tree:
    """(theta - theta*)^2 of some move."""
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(p.shape, generator=generator, dtype=p.dtype) ** 2 for name, p in of.params.items()}


def quadratic(fisher: Tree, of: Pass) -> float:
    """Sum of F (theta - theta*)^2."""
    return sum(float((value * move(of)[name]).sum()) for name, value in fisher.items())


def mean_over(of: Pass, labels: str) -> Tree:
    """Mean over examples of squared gradients; the labels are the data's or the predicted ones."""
    model, total = Model(of), zeros(of)
    for x, y in loader(of, 1):
        target = y if labels == "true" else model(x).argmax(1)
        for name, g in model.descend(functional.cross_entropy(model(x), target)).items():
            total[name] += g**2 / len(of.x)
    return total


def exact(of: Pass) -> Tree:
    n = len(of.x)
    return {name: value * (n - 1) / n for name, value in reference(of).items()}


# What the code base adds to the loss of the second task at lambda = 1, from its own source.
PENALTIES: dict[str, Callable[[Pass], float]] = {
    "ours": lambda of: 0.5 * quadratic(exact(of), of),
    "ours/empirical": lambda of: 0.5 * quadratic(mean_over(of, "true"), of),
    "ours/predicted": lambda of: 0.5 * quadratic(mean_over(of, "predicted"), of),
    "ours/batched": lambda of: 0.5 * quadratic(avalanche(of), of),
    "reference": lambda of: 0.5 * quadratic(reference(of), of),  # ewc_loss
    "reference/batched": lambda of: 0.5 * quadratic(reference(of, labels="true", size=B), of),
    "avalanche": lambda of: quadratic(avalanche(of), of),  # before_backward
    "capymoa": lambda of: 0.5 * quadratic(capymoa(of), of),  # weighted_l2_reg
    "clarena": lambda of: 0.5 * quadratic(clarena(of, EPOCHS), of),  # training_step
    "ewc_pytorch": lambda of: quadratic(ewc_pytorch(of._replace(x=of.x[:SAMPLES])), of),  # penalty
    "facil": lambda of: quadratic({name: 0.5 * 0.0 + 0.5 * f for name, f in facil(of).items()}, of) / 2,  # criterion
    "gt_ripl": lambda of: quadratic(gt_ripl(of), of),  # L2.criterion
    "gt_ripl/mnist": lambda of: quadratic(gt_ripl(of, size=1), of),
    "laplace_torch": lambda of: 0.5 * quadratic(laplace_torch(of), of),  # the posterior's precision
    "libcontinual": lambda of: quadratic(libcontinual(of, fishermax=float("inf")), of) / 2,  # compute_ewc; not clipped
    "mammoth": lambda of: quadratic(mammoth(of), of),  # penalty
    "pycil": lambda of: quadratic(pycil(of, fishermax=float("inf")), of) / 2,  # compute_ewc; nothing clipped
}


def pairs() -> Iterator[tuple[str, str]]:
    """Code bases with the same labels."""
    for a, b in itertools.permutations(CODE_BASES, 2):
        if CODE_BASES[a].labels == CODE_BASES[b].labels:
            yield a, b


@pytest.mark.parametrize("n", [20, 23, SAMPLES])
def test_a_translated_lambda_gives_the_same_penalty_where_it_says_so(n: int) -> None:
    """And another one where it does not. Those with examples of their own are asked for these."""
    of, own = made_pass(n=n), ("capymoa", "ewc_pytorch")
    penalty = {name: of_one(of) for name, of_one in PENALTIES.items() if name not in own or n == SAMPLES}
    said = dict.fromkeys((True, False), 0)
    for a, b in pairs():
        if a not in penalty or b not in penalty:
            continue
        found = translate(a, b, 100.0, Sizes(n, B, EPOCHS))
        because = [text for text in found.because if "clips" not in text]
        ratio = found.lam * penalty[b] / (100.0 * penalty[a])
        assert (abs(ratio - 1) < 1e-9) == (not because), (a, b, ratio, because)
        said[not because] += 1
    assert min(said.values()) > 10


@pytest.mark.parametrize("name", CODE_BASES)
def test_our_own_settings_give_the_penalty(name: str) -> None:
    """`here`: (lam/2) gamma F of method=ewc, after one task."""
    n = SAMPLES if name == "ewc_pytorch" else 23
    of = made_pass(n=n)
    *overrides, lam = here(name, 10.0, EPOCHS).split()
    changes = ["fisher.clip=null"] if CODE_BASES[name].clip else CHANGES.get(name, ())
    (arm,) = cli.arms(*overrides, f"batch_size={B}", *changes)
    gamma = arm["method"].get("gamma", 1.0)
    ours = 0.5 * float(lam.removeprefix("lam=")) * gamma * quadratic(of.measure(build("fisher", arm["fisher"])), of)
    assert ours == pytest.approx(10.0 * PENALTIES[name](of), rel=1e-5)  # lam is written with six digits


def test_facil_is_a_decay_of_a_half() -> None:
    """FACIL's F <- (F_old + F)/2 is half of our Omega <- F + Omega/2, of which our penalty has gamma = 1/2."""
    old = omega = 0.0
    for f in (3.0, 0.2, 7.0, 1.0):
        old, omega = 0.5 * old + 0.5 * f, f + 0.5 * omega
        assert old == pytest.approx(0.5 * omega, rel=1e-12)
    assert CODE_BASES["facil"].gamma == HALF


@pytest.mark.parametrize(("a", "b"), list(pairs()))
def test_there_and_back_is_the_same_lambda(a: str, b: str) -> None:
    sizes = Sizes(23, B, EPOCHS)
    there, back = translate(a, b, 100.0, sizes), translate(b, a, 1.0, sizes)
    assert there.lam * back.lam == pytest.approx(100.0, rel=1e-12)
    assert bool(there.because) == bool(back.because)
    for c in CODE_BASES:
        if CODE_BASES[c].labels == CODE_BASES[a].labels:
            through = translate(c, b, translate(a, c, 100.0, sizes).lam, sizes).lam
            assert through == pytest.approx(there.lam, rel=1e-12)


def test_a_lambda_is_what_a_hand_says() -> None:
    assert translate("avalanche", "ours/batched", 3.0, Sizes()) == (6.0, "lam_ours/batched = lam_avalanche * 2", ())
    assert translate("ours", "reference", 1000.0, Sizes(101)).lam == pytest.approx(1000 * 100 / 101)
    assert translate("gt_ripl/mnist", "ewc_pytorch", 5.0, Sizes()) == (5.0, "lam_ewc_pytorch = lam_gt_ripl/mnist", ())
    value, formula, because = translate("facil", "gt_ripl", 8.0, Sizes(300, 100))
    assert value == pytest.approx(8 / 4 / 100, rel=1e-12)  # M = m
    assert (formula, because) == ("lam_gt_ripl = lam_facil * M / (4 b m)", ())
    about = translate("avalanche", "mammoth", 100.0, Sizes(batch=128))
    assert about.lam == 100 / 128
    assert len(about.because) == 2


REFUSED = [
    (["--from", "foo", "--to", "ours", "--lam", "1"], "--from=foo: must be one of ours, ours/empirical"),
    (["--from", "ours", "--to", "foo", "--lam", "1"], "--to=foo: must be one of ours, ours/empirical"),
    (["--from", "ours"], "translate: needs --to, --lam, or --table"),
    (["--from", "ours", "--to", "avalanche", "--lam", "1"], "no constant translates gradients of all labels into"),
    (["--from", "avalanche", "--to", "clarena", "--lam", "1"], "needs --examples, --batch, --epochs"),
    (["--from", "ours", "--to", "reference", "--lam", "1"], "--to=reference: needs --examples"),
    (["--from", "ours", "--to", "reference", "--lam", "1", "--examples", "1"], "--examples=1: divides by N-1 = 0"),
    (["--from", "ours/batched", "--to", "reference/batched", "--lam", "1", "--examples", "5", "--batch", "8"],
     "--examples=5 --batch=8: divides by M-1 = 0"),
    (["--from", "ours", "--to", "reference", "--lam", "1", "--examples", "0"], "--examples=0: must be at least 1"),
    (["--from", "ours", "--to", "reference", "--lam", "-1"], "--lam=-1: must be a finite number of at least 0"),
    (["--from", "ours", "--to", "reference", "--lam", "nan"], "--lam=nan: must be a finite number of at least 0"),
    (["--from", "ours", "--to", "reference", "--lam", "x"], "argument --lam: invalid float value: 'x'"),
    (["--form", "ours"], "unrecognized arguments: --form ours"),
    (["--table", "--from", "avalanche", "--lam", "1"], "needs --examples"),
    (["--table", "--from", "foo", "--lam", "1"], "--from=foo: must be one of"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), REFUSED)
def test_what_cannot_be_translated_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(monkeypatch, tmp_path, "translate", *arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_the_command_says_what_it_is_sure_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert cli.run(monkeypatch, tmp_path, "translate", *arguments) == 0
        return capfd.readouterr().out

    text = said("--from", "avalanche", "--to", "ours/batched", "--lam", "100")
    assert text.startswith("avalanche lam=100 is ours/batched lam=200\n")
    assert "exact, of one earlier task" in text
    assert "method=ewc_offline fisher=compat/avalanche lam=200\n" in text
    text = said("--from", "avalanche", "--to", "mammoth", "--lam", "100", "--batch", "50")
    assert text.startswith("avalanche lam=100 is about mammoth lam=2\n")
    assert "of scale only" in text
    rows = said("--table", "--from", "mammoth", "--lam", "2", "--examples", "120", "--batch", "50", "--epochs", "4")
    last = {
        line.split()[0]: line.split()[-1]
        for line in rows.splitlines()
        if line.split()[:1] and line.split()[0] in CODE_BASES
    }
    assert set(last) == set(CODE_BASES)
    assert (last["mammoth"], last["avalanche"], last["ours"]) == ("2", "~100", "-")  # 2 (1/150) / (1/3) 50^2


def test_translating_needs_no_torch() -> None:
    code = "import sys; import cl_repro.study.translate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=cli.ROOT)
