"""Configuration: types of the scalars, resolvers, and the rules that refuse bad values before any training.

Nobody below the entry point reads a configuration: `build` turns each group's node into the object it describes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from cl_repro.common import rules
from cl_repro.common.errors import UserError
from cl_repro.records.csvs import UNWRITABLE
from cl_repro.study.factories import FLAGS, check_targets

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

OUTPUTS = {"bench", "figures", "ledger.csv", "ledger.md", "multirun", "published", "report", "tables"}
SAVES = ("weights", "weights_of_tasks")
MOST_DECADES = 300  # on either side of a lambda: more are none or infinitely many in any type of number
RULES: dict[str, rules.Rule] = {
    "workers": rules.AUTO_OR_COUNT,
    "max_replicas": rules.AUTO_OR_COUNT,
    "rows_per_pass": rules.AUTO_OR_COUNT,
    "dtype": rules.one_of(rules.LARGEST),
    "retry": rules.one_of(("all", "failed")),
    "save": rules.or_null(rules.one_of(SAVES), "no weights"),
    "checkpoint_every": rules.SECONDS,
    "time_budget": rules.or_null(rules.SECONDS, "no end"),
    "val_fraction": rules.or_null((lambda value: 0 < value < 1, "between 0 and 1"), "no validation rows"),
}
SUGGESTED: rules.Rule = (  # for rows_per_pass=auto
    lambda node: isinstance(node, Mapping) and all(rules.COUNT[0](node.get(kind)) for kind in ("cpu", "cuda")),
    f"{{cpu: N, cuda: N}}, integers from 1 to {rules.MOST_STEPS}",
)


@dataclass
class Schema:
    """Types of the top-level keys; the groups' nodes are checked against their factories."""

    name: str = MISSING
    scale: str = MISSING
    suffix: str = ""
    seeds: list[int] = MISSING
    iterations: Any = MISSING
    label: str | None = None
    reinit: bool = MISSING
    batch_size: int = MISSING
    lam: float = MISSING
    val_fraction: float | None = None
    data_dir: str = MISSING
    results_dir: str = MISSING
    device: str = MISSING
    dtype: str = MISSING
    tf32: bool = MISSING
    channels_last: bool = MISSING
    cuda_graph: bool = MISSING
    deterministic: bool = MISSING
    workers: Any = MISSING
    max_replicas: Any = MISSING
    share_first_task: bool = MISSING
    retry: str = MISSING
    time_budget: float | None = None
    save: str | None = None
    checkpoint_every: float = 300.0
    copy: int = MISSING
    rows_per_pass: Any = MISSING
    benchmark: dict[str, Any] = field(default_factory=dict)
    scenario: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    fisher: Any = None
    grid: dict[str, Any] = field(default_factory=dict)
    arms: Any = None
    analysis: dict[str, Any] = field(default_factory=dict)
    allow_targets: list[str] = field(default_factory=list)


def register() -> None:
    """Make the schema and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Schema)
    # ${upto:3} -> [1, 2, 3]
    OmegaConf.register_new_resolver("upto", lambda n: list(range(1, int(n) + 1)), replace=True)
    # ${decades:3,1} -> [0.3, 3.0, 30.0]; of what is no number, the rule that refuses it tells
    OmegaConf.register_new_resolver(
        "decades",
        lambda centre, n: (
            [float(f"{centre * 10.0**i:.12g}") for i in range(-n, n + 1)]
            if rules.is_number(centre) and rules.is_int(n) and n <= MOST_DECADES
            else [centre]
        ),
        replace=True,
    )
    # ${label:exact,500} -> exact_500, ${label:exact,null} -> exact
    OmegaConf.register_new_resolver(
        "label", lambda *parts: "_".join(str(p) for p in parts if p is not None), replace=True
    )
    OmegaConf.register_new_resolver("meanings", meanings, replace=True)


def meanings() -> str:
    """What each group and key means, a line each, for `--help`: the comments of the files that have them."""
    texts = [(CONF / name).read_text(encoding="utf-8") for name in ("config.yaml", "scale/cpu.yaml")]
    found = re.findall(r"^(?:  - )?(\w+): \S.*?\s# (.*)$", "\n".join(texts), re.MULTILINE)
    return "\n".join(f"  {key:<16}  {meaning}" for key, meaning in found)


def check(cfg: Mapping[str, Any]) -> None:
    """Refuse values no run can have, with the key, the value and the rule; `cfg` is the configuration of one arm."""
    names = [one.name for one in fields(Schema)]
    for key in sorted({*cfg} ^ {*names}):
        rule = f"unknown key; allowed: {', '.join(sorted(names))}" if key in cfg else "missing; every run has it"
        raise UserError(f"{key}: {rule}")
    check_characters(cfg)
    check_nodes(cfg)
    check_targets(cfg)
    check_folder(cfg)
    check_seeds(cfg["seeds"])
    check_counts(cfg)
    for key, rule_of_key in RULES.items():
        rules.require(key, cfg[key], rule_of_key)
    if cfg["rows_per_pass"] == "auto":
        rules.require("model.rows_per_pass", cfg["model"].get("rows_per_pass"), SUGGESTED)
    check_grid(cfg["grid"])
    check_largest(cfg)


def check_characters(value: Any, key: str = "") -> None:
    """Refuse text, of whatever setting, that no table, terminal or file name can hold."""
    if isinstance(value, str) and UNWRITABLE.search(value):
        raise UserError(f"{key}={value!r}: must have no control characters")
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, one in inner:
        check_characters(one, f"{key}.{name}".lstrip("."))


def check_largest(cfg: Mapping[str, Any]) -> None:
    """Refuse lambdas that would be infinite, wherever they come from."""
    largest = rules.LARGEST[cfg["dtype"]]
    for lam in cfg["grid"]["lambdas"] or ():
        if lam > largest:
            raise UserError(f"lambda={lam}: must be at most {largest:.3g}, the largest {cfg['dtype']}")


def check_counts(cfg: Mapping[str, Any]) -> None:
    """Refuse a batch of no examples, and tasks of no iterations or of too many."""
    n_tasks, length = cfg["benchmark"].get("n_tasks"), cfg["iterations"]
    epochs = isinstance(length, Mapping)
    if epochs and set(length) != {"epochs"}:
        raise UserError(f"iterations={length}: must be a number, a list of them, or {{epochs: a number or a list}}")
    key, given, least = ("iterations.epochs", length["epochs"], 0) if epochs else ("iterations", length, 1)
    rules.require("batch_size", cfg["batch_size"], rules.COUNT)
    holds, words = rules.from_to(least, rules.MOST_STEPS)
    for_each = (lambda given: all(map(holds, per_task(given, 1))), f"{words}, or a list of one for each task")
    rules.require(key, given, for_each)
    if isinstance(given, list) and len(given) != n_tasks:
        rule = f"must be one number, or one for each of the benchmark.n_tasks={n_tasks} tasks"
        raise UserError(f"{key}={given}: {rule}")
    if not any(per_task(given, 1)):
        raise UserError(f"{key}={given}: must train at least one task")


def per_task(given: int | list[int], n_tasks: int) -> list[int]:
    """Iterations, or epochs, of each task; one number is for all."""
    return given if isinstance(given, list) else [given] * n_tasks


def check_nodes(cfg: Mapping[str, Any]) -> None:
    """Refuse a group's file without what the program asks of every file of that group."""
    for group, flags in FLAGS.items():
        node = cfg[group]
        if node is None and group == "fisher":
            continue
        for key in ("name", "_target_", *flags):
            if not isinstance(node, Mapping) or key not in node:
                raise UserError(f"{group}.{key}: missing; every file under {group}/ has it")
            rules.require(f"{group}.{key}", node[key], rules.FLAG if key in flags else rules.NAME)


def check_folder(cfg: Mapping[str, Any]) -> None:
    """Refuse a name that is no name of a folder, and results without a place."""
    for key, whole in (("name", cfg["name"]), ("suffix", f"_{cfg['suffix']}")):
        if not re.fullmatch(r"\w[\w.-]*", whole):
            raise UserError(
                f"{key}={cfg[key]}: names a folder under results_dir, so it must be of letters, digits, _, - and ."
            )
    whole = cfg["name"] + cfg["suffix"]
    if whole.lower() in OUTPUTS:
        raise UserError(f"name={whole}: must be none of {', '.join(sorted(OUTPUTS))}, which results_dir has of its own")
    if not cfg["results_dir"]:
        raise UserError("results_dir=: must name a folder")


def check_grid(grid: Mapping[str, Any]) -> None:
    """Refuse lambdas no run can have, and windows without a place or a width."""
    for key in grid:
        if key not in ("lambdas", "window", "centre", "each_side"):
            raise UserError(f"grid.{key}: unknown key; allowed: lambdas, window, centre, each_side")
    decades, words = rules.from_to(0, MOST_DECADES)
    rules.require("grid.each_side", grid.get("each_side", 0), (decades, f"{words}, in decades"))
    rules.require("grid.centre", grid.get("centre", 1.0), rules.POSITIVE)
    lambdas, window = grid.get("lambdas"), grid.get("window")
    if window is not None:
        check_window(window)
        if lambdas is None:
            return
    if not lambdas or not isinstance(lambdas, list):
        raise UserError(f"grid.lambdas={lambdas}: must list at least one lambda")
    for lam in lambdas:
        rules.require("lambda", lam, (lambda lam: rules.is_number(lam) and lam >= 0, "a finite number of at least 0"))
    if len(set(map(float, lambdas))) < len(lambdas):
        raise UserError(f"grid.lambdas={list(lambdas)}: must not repeat a value")


def check_window(window: Any) -> None:
    """Refuse a window without a place or a width."""
    if not isinstance(window, Mapping) or set(window) != {"product", "decades"}:
        raise UserError(f"grid.window={window}: must have the keys product and decades")
    rules.require("grid.window.product", window["product"], rules.POSITIVE)
    rules.require("grid.window.decades", window["decades"], rules.from_to(1, MOST_DECADES))


def check_one_lambda(cfg: Mapping[str, Any]) -> None:
    """Refuse a grid, for programs that train at one lambda, `lam`."""
    if cfg["grid"]["lambdas"] != [cfg["lam"]]:
        raise UserError("grid: this program takes one lambda, lam; choose grid=one")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse an empty list, repetitions and seeds outside NumPy's range."""
    if not seeds:
        raise UserError("seeds=[]: must list at least one seed")
    for seed in seeds:
        if not rules.is_int(seed) or not 0 <= seed < 2**32:
            raise UserError(f"seeds={list(seeds)}: {seed} must be an integer from 0 to 2**32 - 1")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={list(seeds)}: must not repeat a seed")
