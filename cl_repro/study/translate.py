r"""`python -m cl_repro translate`: the lambda that gives the same penalty in another code base's EWC. No torch.

After one task every code base adds to the loss

    lam c k sum_U g_U^2 (theta - theta*)^2

with g_U the gradient of an example or of the mean loss of a mini-batch, c a number (the half), and k of the task's N
examples, the batch size b, M = ceil(N/b) or m = floor(N/b) batches and E epochs. Where two code bases sum the same
squares, lam_to = lam_from (c k)_from / (c k)_to is exact; where they do not, it is one of scale, or there is none.
What each of them computes: `code_bases`.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from cl_repro.common.errors import Parser, UserError
from cl_repro.common.rules import is_number
from cl_repro.study.code_bases import CODE_BASES, CodeBase, Powers

OPTIONS = {"N": ("examples",), "N-1": ("examples",), "b": ("batch",), "E": ("epochs",)} | dict.fromkeys(
    ("M", "M-1", "m"), ("examples", "batch")
)
"""Quantity -> options that say how much it is."""


class Sizes(NamedTuple):
    """Sizes of the task whose F is measured; None: not told."""

    examples: int | None = None
    batch: int | None = None
    epochs: int | None = None


class Product(NamedTuple):
    """What a lambda is multiplied by."""

    constant: Fraction
    powers: Powers

    def times(self, lam: float, values: Mapping[str, int]) -> float:
        """The product, with these values of the quantities."""
        return lam * float(self.constant) * math.prod(values[name] ** power for name, power in self.powers.items())

    def text(self, start: str) -> str:
        """The product, readable: lam * M / (2 b)."""
        numbers = {"above": self.constant.numerator, "below": self.constant.denominator}
        parts = {place: [str(number)] * (number != 1) for place, number in numbers.items()}
        for name, power in self.powers.items():
            own = f"({name})" if "-" in name else name
            parts["above" if power > 0 else "below"].append(own + (f"^{abs(power)}" if abs(power) != 1 else ""))
        text = " * ".join([start, *parts["above"]])
        return (
            f"{text} / ({' '.join(parts['below'])})" if len(parts["below"]) > 1 else " / ".join([text, *parts["below"]])
        )


class Translation(NamedTuple):
    """A lambda in another code base."""

    lam: float
    formula: str  # lam_to = lam_from ...
    because: tuple[str, ...]  # why it is not exact; empty if it is


def translate(source: str, target: str, lam: float, sizes: Sizes) -> Translation:
    """The lambda of `target` whose penalty after one task is that of `source` with `lam`.

    Args:
        source: of CODE_BASES.
        target: of CODE_BASES.
        lam: of the source.
        sizes: what is known; only what matters is needed.

    Returns:
        The lambda, and whether it is exact.

    Raises:
        UserError: unknown names, bad or missing numbers, or labels that no constant translates.
    """
    a, b = of(source, "from"), of(target, "to")
    if not (is_number(lam) and lam >= 0):
        raise UserError(f"--lam={lam:g}: must be a finite number of at least 0")
    if a.labels != b.labels:
        raise UserError(
            f"--from={source} --to={target}: no constant translates gradients of {WORDS[a.labels]} into those of "
            f"{WORDS[b.labels]}; grid=window places lambda by the trace of either"
        )
    factor = ratio(a, b)
    value = factor.times(lam, known(source, target, factor.powers, sizes))
    return Translation(value, f"lam_{target} = {factor.text(f'lam_{source}')}", reasons(source, target, sizes))


WORDS = {"all": "all labels", "true": "the data's label", "predicted": "the predicted label"}


def of(name: str, option: str) -> CodeBase:
    """A code base by its name."""
    if name not in CODE_BASES:
        raise UserError(f"--{option}={name}: must be one of {', '.join(CODE_BASES)}")
    return CODE_BASES[name]


def ratio(a: CodeBase, b: CodeBase) -> Product:
    """(c k) of a over that of b, with sum_B g_B^2 = b^-2 sum_n g_n^2 where only one of them has batches."""
    powers = {name: a.k.get(name, 0) - b.k.get(name, 0) for name in OPTIONS}
    powers["b"] += 2 * ((b.unit == "batch") - (a.unit == "batch"))
    return Product(a.c / b.c, {name: power for name, power in powers.items() if power})


def known(source: str, target: str, powers: Powers, sizes: Sizes) -> dict[str, int]:
    """How much the quantities of a formula are.

    Raises:
        UserError: naming the options that are missing, or one that is out of range.
    """
    for option, value in sizes._asdict().items():
        if value is not None and value < 1:
            raise UserError(f"--{option}={value}: must be at least 1")
    needed = [option for option in Sizes._fields if any(option in OPTIONS[name] for name in powers)]
    if missing := [f"--{option}" for option in needed if getattr(sizes, option) is None]:
        raise UserError(f"--from={source} --to={target}: needs {', '.join(missing)}")
    n, b = sizes.examples or 1, sizes.batch or 1
    values = {"N": n, "N-1": n - 1, "b": b, "E": sizes.epochs or 1, "M": -(-n // b), "M-1": -(-n // b) - 1, "m": n // b}
    for name in powers:
        if values[name] < 1:
            raise UserError(
                f"--examples={n}" + (f" --batch={b}" if "M" in name or name == "m" else "") + f": divides by {name} = 0"
            )
    return values


def reasons(source: str, target: str, sizes: Sizes) -> tuple[str, ...]:
    """Why a translation between equal labels is not exact."""
    a, b = CODE_BASES[source], CODE_BASES[target]
    found = []
    if a.unit != b.unit:
        batches, examples = (source, target) if a.unit == "batch" else (target, source)
        found.append(f"{batches} squares gradients of batches, {examples} of examples: b times more if uncorrelated")
        if a.labels == "predicted":
            found[-1] += ", up to as much if alike, as those towards predicted labels are"
    if a.likelihood != b.likelihood:
        weighs = source if a.likelihood else target
        found.append(f"{weighs} weighs each example by p(y|x), at most 1: its F is smaller")
    n, size = sizes.examples, sizes.batch
    if a.unit == b.unit == "batch" and a.last != b.last and n and size and n % size:
        found.append(f"the last batch has {n % size} of {size} examples: {source} {a.last}, {target} {b.last}")
    found += [
        f"{name} clips F at {CODE_BASES[name].clip:g}"
        for name in dict.fromkeys((source, target))
        if CODE_BASES[name].clip
    ]
    return () if source == target else tuple(found)


def here(name: str, lam: float | None = None, epochs: int | None = None) -> str:
    """The overrides that give a code base's penalty with our estimators, with numbers where they are known.

    Its lambda is multiplied to be ours, whose penalty is (lam/2) gamma F.
    """
    base = CODE_BASES[name]
    factor = Product(2 * base.c / base.gamma, {"E": base.k["E"]} if "E" in base.k else {})
    if lam is None or (factor.powers and not epochs):
        return f"{base.here} lam={factor.text('lam').replace(' ', '')}"
    return f"{base.here} lam={factor.times(lam, {'E': epochs or 1}):.6g}"


def print_one(source: str, target: str, lam: float, sizes: Sizes) -> None:
    """A lambda, what it rests on, and how to have the source's penalty here."""
    found = translate(source, target, lam, sizes)
    print(f"{source} lam={lam:g} {'is about' if found.because else 'is'} {target} lam={found.lam:.6g}")
    print(f"  {found.formula}")
    print("  exact, of one earlier task" if not found.because else "  of scale only:")
    for text in found.because:
        print(f"    {text}")
    if CODE_BASES[source].tasks != CODE_BASES[target].tasks:
        print(f"  several tasks differ: {source}: {CODE_BASES[source].tasks}; {target}: {CODE_BASES[target].tasks}")
    print(f"  {source} here: {here(source, lam, sizes.epochs)}")


def print_table(source: str | None, lam: float | None, sizes: Sizes) -> None:
    """All code bases, and what a lambda of one of them is in the others, if asked for."""
    headers = ("code base", "labels", "squares of", "penalty after a task", "several tasks", "here")
    table = Table(*headers, box=box.SIMPLE_HEAD)
    if source is not None and lam is not None:
        of(source, "from")
        table.add_column(f"{source} lam={lam:g} is", justify="right")
    for name, base in CODE_BASES.items():
        squares = "(p(y|x) g^2)" if base.likelihood else "g^2"
        penalty = f"{Product(base.c, base.k).text('lam')} * sum {squares}" + (
            f", F <= {base.clip:g}" if base.clip else ""
        )
        row = [name, base.labels, base.unit, penalty, base.tasks, here(name)]
        if source is not None and lam is not None:
            row.append(cell(source, name, lam, sizes))
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 200)  # a row is a line
    console.print(table)


def cell(source: str, target: str, lam: float, sizes: Sizes) -> str:
    """A lambda of the table: with ~ where it is of scale only, - where there is none."""
    if CODE_BASES[source].labels != CODE_BASES[target].labels:
        return "-"
    found = translate(source, target, lam, sizes)
    return f"{'~' * bool(found.because)}{found.lam:.6g}"


def main(arguments: Sequence[str]) -> None:
    """`python -m cl_repro translate --from avalanche --to pycil --lam 100`; raises as `translate`."""
    parser = Parser(
        prog="cl-repro translate", description="Lambda in the EWC of another code base.", allow_abbrev=False
    )
    parser.add_argument("--from", dest="source", metavar="CODE_BASE", help=", ".join(CODE_BASES))
    parser.add_argument("--to", dest="target", metavar="CODE_BASE")
    parser.add_argument("--lam", type=float, help="of --from")
    parser.add_argument("--examples", type=int, metavar="N", help="of a task, that the Fisher is measured on")
    parser.add_argument("--batch", type=int, metavar="B", help="examples of a mini-batch, as in training")
    parser.add_argument("--epochs", type=int, metavar="E", help="of a task's training")
    parser.add_argument("--table", action="store_true", help="what every code base computes")
    given = parser.parse_args(arguments)
    sizes = Sizes(given.examples, given.batch, given.epochs)
    if given.table:
        print_table(given.source, given.lam, sizes)
        return
    if missing := [
        f"--{o}" for o, v in (("from", given.source), ("to", given.target), ("lam", given.lam)) if v is None
    ]:
        raise UserError(f"translate: needs {', '.join(missing)}, or --table")
    print_one(given.source, given.target, given.lam, sizes)
