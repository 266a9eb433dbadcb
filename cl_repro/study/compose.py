"""From a command line to the resolved configuration of every arm. No torch."""

import inspect
import os
import re
import traceback
from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from cl_repro.analysis.data.settings import of_file
from cl_repro.common.errors import Parser, UserError
from cl_repro.study.config import CONF, Schema
from cl_repro.study.grid import label_of

ConfigurationError = (HydraException, OmegaConfBaseException, YAMLError)
# Hydra also lets through what reading a file and converting a value raise: a binary file, `lam=` with 400 digits.
CompositionError = (*ConfigurationError, OSError, OverflowError, ValueError)
TYPED = "CL_REPRO_TYPED"  # environment variable: the settings on the command line, by name, for all jobs of its sweep
# What an arm cannot have of its own.
OF_THE_STUDY = {
    "allow_targets", "analysis", "arms", "checkpoint_every", "copy", "data_dir", "deterministic", "device",
    "max_replicas", "name", "results_dir", "retry", "save", "scale", "study", "suffix", "time_budget", "workers",
}  # fmt: skip
# Keys whose value is text or the name of a file, and what Hydra would take for something else.
TEXTS = {one.name for one in fields(Schema) if one.type in (str, str | None)}
GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}
NO_TEXT = re.compile(r"(?i)[-+]?(\d[\d_]*\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf|nan|true|false")
# What a method brings: which choice of these groups it has at first, so that another can be made.
NOT_BROUGHT = {
    "fisher": "fisher=: this method uses no Fisher; if yours does, its file under method/ must say so, as that of ewc: "
    "defaults: [/fisher@_global_.fisher: exact, _self_]",
    "memory": "memory@method.memory=: this method has no such memory; if yours has, its file under method/ must "
    "say so, as that of replay: defaults: [/memory@memory: end_of_task, _self_]",
}


def from_command_line(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The arms of a command line, outside the Hydra application (`arms_of` is for inside).

    Args:
        arguments: as typed, e.g. study=mine scale=cpu --config-dir own; of Hydra's options those that say where a
            configuration is.

    Returns:
        As `arms_of`.

    Raises:
        UserError: what Hydra refuses, a launcher, which starts the jobs of a sweep alone, and as `arms_of`.
    """
    parser = Parser(allow_abbrev=False, epilog="`cl-repro --help` says what every key means")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--config-dir", "-cd", type=folder)
    parser.add_argument("--config-path", "-cp", type=folder, default=CONF)
    parser.add_argument("--config-name", "-cn", default="config")
    given = parser.parse_intermixed_args(arguments)
    overrides = [literal(text) for text in given.overrides]
    if launcher := sorted(key for key in keys(overrides) if key.startswith(("hydra/launcher", "hydra.launcher"))):
        raise UserError(f"{launcher[0]}=: a launcher starts the jobs of a sweep, `python -m cl_repro -m`; leave it out")
    with hydra.initialize_config_dir(str(given.config_path), version_base="1.3"):
        if given.config_dir:
            loader: Any = GlobalHydra.instance().config_loader()
            loader.get_search_path().prepend("command-line", f"file://{given.config_dir}", "schema")
            loader.repository.initialize_sources(loader.get_search_path())
        try:
            cfg = hydra.compose(given.config_name, overrides=overrides)
            return permitted(arms_of(cfg, overrides, given.config_name), overrides)
        except UserError:
            raise
        except CompositionError as error:
            raise UserError(one_line(error)) from None


def literal(argument: str) -> str:
    """`label=0.10` as `label='0.10'`: what is text stays as it is typed, whatever it looks like."""
    key, _, value = argument.partition("=")
    name = key.lstrip("+").partition("@")[0]
    looks_other = NO_TEXT.fullmatch(value) or (name in GROUPS and (value == "null" or value[:1] in ("[", "{")))
    return f"{key}='{value}'" if name in TEXTS | GROUPS and looks_other else argument


def folder(text: str) -> Path:
    """An argument as the absolute path of a folder of configuration files, which is there."""
    path = Path(text).absolute()
    if not path.is_dir():
        raise ArgumentTypeError(f"additional config directory '{path}' not found")
    return path


def arms_of(cfg: DictConfig, overrides: Sequence[str], name: str = "config") -> list[dict[str, Any]]:
    """The resolved configuration of every arm: the command line's, once more with the arm's own choices.

    Args:
        cfg: what Hydra composed.
        overrides: of the command line.
        name: of the file that it was composed of.

    Returns:
        Plain dictionaries; one if the study lists no arms. With arms=[ewc-exact,si] those of the study that are
        called so in its tables.

    Raises:
        UserError: an override that the arms decide, or one that does not fit an arm, or a name that no arm has.
    """
    if cfg.arms is None:
        return used([resolve(cfg)], overrides)
    given = OmegaConf.to_container(cfg.arms, resolve=True) if OmegaConf.is_config(cfg.arms) else cfg.arms
    if isinstance(given, list) and given and all(isinstance(one, str) for one in given) and "arms" in keys(overrides):
        others = [text for text in overrides if "arms" not in keys([text])]
        return labelled(given, arms_of(hydra.compose(name, overrides=others), others, name))
    arms = written_out(given) if isinstance(given, list) else given
    if not isinstance(arms, list) or not arms or not all(map(is_choice, arms)):
        raise UserError(
            f"arms={arms}: must be a list of choices such as [{{method: finetune}}, {{method: ewc, fisher: exact}}]"
        )
    if taken := sorted(keys(overrides) & {key for arm in arms for key in keys(arm)}):
        raise UserError(
            f"{taken[0]}=: this study lists its arms, which choose it; set arms=[...] instead, or leave out study="
        )
    if wide := sorted({key for arm in arms for key in keys(arm) if key in OF_THE_STUDY or key.startswith("hydra")}):
        raise UserError(f"arms: {wide[0]} is one for all arms of a study: set it beside arms, not in one of them")
    result = []
    for arm in arms:
        own = [f"{key}={written(value)}" for key, value in arm.items()]
        try:
            result.append(resolve(hydra.compose(name, overrides=[*overrides, *own])))
        except CompositionError as error:
            name = ", ".join(f"{key}={'null' if value is None else value}" for key, value in arm.items())
            raise UserError(f"arm {name}: {one_line(error)}") from None
    return used(result, overrides)


def labelled(names: list[str], arms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a study's arms those with these names, in the study's order."""
    known = [label_of(arm) for arm in arms]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"arms={unknown[0]}: no arm has this name; choose of {', '.join(dict.fromkeys(known))}")
    return [arm for arm, name in zip(arms, known, strict=True) if name in names]


def written_out(arms: list[Any]) -> list[Any]:
    """Arms, with every block `{for_each: {scenario: [task, class]}, arms: [...]}` as its arms for each choice in turn.

    In a block an arm may have a value for each choice, `lam: {task: 0.1, class: 10.0}`; `{}` in a text is the choice,
    as in `label: replay-{}_images`; an arm that makes the choice itself, `scenario: task`, is there for that one alone.

    Raises:
        UserError: a block of another form.
    """
    result = []
    for one in arms:
        if not (isinstance(one, dict) and "for_each" in one):
            result.append(one)
            continue
        match one:
            case {"for_each": {**each}, "arms": [*inner], **rest} if len(each) == 1 and not rest:
                [(key, choices)], inner = each.items(), written_out(inner)
            case _:
                choices, inner = None, []
        if not (isinstance(choices, list) and all(map(is_scalar, choices)) and all(isinstance(a, dict) for a in inner)):
            raise UserError(f"arms: {one}: must be {{for_each: {{key: [choice, choice]}}, arms: [{{method: ewc}}]}}")
        result += [
            {key: choice} | {name: chosen(value, choice) for name, value in arm.items()}
            for choice in choices
            for arm in inner
            if arm.get(key, choice) == choice
        ]
    return result


def chosen(value: Any, choice: Any) -> Any:
    """What a value in a block is for one choice."""
    if isinstance(value, dict):
        return value.get(choice, value)
    return value.replace("{}", str(choice)) if isinstance(value, str) else value


def used(arms: list[dict[str, Any]], overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The arms; refuses what is said in vain: `lam` where every grid lists its own lambdas, `analysis` elsewhere."""
    if typed := sorted(key for key in keys(overrides) if key.partition(".")[0] == "analysis"):
        raise UserError(f"{typed[0]}=: figures and tables read it in the study's file, conf/study/; write it there")
    if any(text.partition("=")[0] == "~fisher" for text in overrides):
        raise UserError("~fisher: a method that uses a Fisher cannot go without; choose another, fisher=sample")
    chosen_study = [text.partition("=")[2] for text in overrides if text.startswith("study=")]
    own = arms[0]["analysis"]
    if own and own not in map(of_file, (arms[0]["name"], *chosen_study)):
        raise UserError(
            f"analysis.{min(own)}: figures and tables read it in this package's conf/study/ alone, and study "
            f"{arms[0]['name']} is of another folder; leave it out, or put the study there"
        )
    if "lam" in keys(overrides) and not any(arm["grid"].get("lambdas") == [arm["lam"]] for arm in arms):
        raise UserError(f"lam={arms[0]['lam']:g}: this grid has lambdas of its own; choose grid=one, or leave out lam=")
    return arms


def permitted(arms: list[dict[str, Any]], typed: Iterable[str]) -> list[dict[str, Any]]:
    """The arms, if it was typed which packages besides this one may run code: no file decides that."""
    given = next((arm["allow_targets"] for arm in arms if arm.get("allow_targets")), None)
    if given and "allow_targets" not in keys(typed):
        raise UserError(f"allow_targets={given}: must be typed on the command line: no file may allow what code runs")
    return arms


def note_typed(arguments: Iterable[str]) -> None:
    """Say, for this process and all jobs of its sweep, which settings were typed."""
    os.environ[TYPED] = " ".join(sorted(keys(arguments) & {one.name for one in fields(Schema)}))


def typed() -> list[str]:
    """What `note_typed` said, here or where the sweep was started."""
    return os.environ.get(TYPED, "").split()


def keys(overrides: Iterable[str]) -> set[str]:
    """The keys that a command line, or an arm, sets."""
    return {override.split("=")[0].lstrip("+~") for override in overrides}


def is_choice(arm: Any) -> bool:
    """One arm of a list: keys with one value each, which of a setting may be a list of scalars."""
    return isinstance(arm, dict) and bool(arm) and all(is_value(str(key), value) for key, value in arm.items())


def is_value(key: str, value: Any) -> bool:
    """A scalar; of a key that chooses no file of a group, a list of scalars, too."""
    if isinstance(value, list):
        setting = ("." in key and "@" not in key) or key in ("seeds", "iterations")
        return setting and all(map(is_scalar, value))
    return is_scalar(value)


def is_scalar(value: Any) -> bool:
    """No list and no mapping."""
    return not isinstance(value, dict | list)


def written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides: text stays text, whatever it looks like."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    return "null" if value is None else str(value)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Interpolations resolved, as plain containers."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def of_composition(error: Exception) -> bool:
    """Whether Hydra raised it while it put a configuration together: before any job, so no job's bug."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    composes = any(frame.f_globals.get("__name__") == "hydra._internal.config_loader_impl" for frame in frames)
    return composes and isinstance(error, CompositionError)


def one_line(error: Exception) -> str:
    """Hydra's message without its search path, on one line, with the allowed keys where one is unknown."""
    text = " ".join(str(error).split("Config search path:")[0].split())
    if chosen := re.match(r"Could not override '(fisher|memory)[\w.@]*'", text):
        text = NOT_BROUGHT[chosen[1]]
    if isinstance(error, UnicodeDecodeError):
        text = f"a configuration file is no text: {text}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return f"unknown key {cause.full_key}; allowed: {', '.join(sorted(map(str, cause.parent_node)))}"
    if cause is not error:
        text += f" {' '.join(str(cause).split())}"
    rules = {one.name: inspect.formatannotation(one.type) for one in fields(Schema)}
    if (found := re.fullmatch(r"Error merging override (\+*(\w+)=.*?) (\S+ .*?) full_key: .*", text)) and found[
        2
    ] in rules:
        return f"{found[1]}: must be of type {rules[found[2]]} ({found[3]})"
    return text
