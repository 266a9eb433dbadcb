"""`python -m cl_repro`, also installed as `cl-repro`: the Hydra application."""

import os
import sys
from typing import Any, NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cl_repro.config import CONF, register
from cl_repro.errors import UserError

register()


def compose_arms(cfg: DictConfig, overrides: list[str]) -> list[dict[str, Any]]:
    """The resolved configuration of every arm: the command line's, once more with the arm's own choices.

    Args:
        cfg: what Hydra composed.
        overrides: of the command line.

    Returns:
        Plain dictionaries; one if the study lists no arms.

    Raises:
        UserError: an override that the arms decide, or one that does not fit an arm.
    """
    if cfg.arms is None:
        return [resolve(cfg)]
    arms = OmegaConf.to_container(cfg.arms, resolve=True)
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, dict) and arm for arm in arms):
        raise UserError(
            f"arms={arms}: must be a list of choices such as [{{method: finetune}}, {{method: ewc, fisher: exact}}]"
        )
    chosen = {override.split("=")[0].lstrip("+~") for override in overrides}
    if taken := sorted(chosen & {key for arm in arms for key in arm}):
        raise UserError(
            f"{taken[0]}=: this study lists its arms, which choose it; set arms=[...] instead, or leave out study="
        )
    result = []
    for arm in arms:
        own = [f"{key}={value}" for key, value in arm.items()]
        try:
            result.append(resolve(hydra.compose("config", overrides=[*overrides, *own])))
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(f"arm {', '.join(own)}: {one_line(error)}") from None
    return result


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Interpolations resolved, as plain containers."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def application(cfg: DictConfig) -> None:
    """Run what was composed. In a sweep a job's mistake must not end the other jobs: Hydra raises it at the end."""
    try:
        run(cfg)
    except UserError as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise
        refuse(error)


def run(cfg: DictConfig) -> None:
    """Compute what is missing, then draw and print what there is."""
    arms = compose_arms(cfg, list(HydraConfig.get().overrides.task))
    from cl_repro import runtime, study  # noqa: PLC0415 - torch is slow to import, and not needed above

    runtime.prepare()
    folder = study.run(arms)
    from cl_repro.analysis import report  # noqa: PLC0415

    print(report(folder.name, folder.parent))


def refuse(error: Exception) -> NoReturn:
    """One line on standard error, exit status 2."""
    print(f"error: {error if isinstance(error, UserError) else one_line(error)}", file=sys.stderr)
    sys.exit(2)


def one_line(error: Exception) -> str:
    """Hydra's message without its search path, on one line, with the allowed keys where one is unknown."""
    text = " ".join(str(error).split("Config search path:")[0].split())
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return f"unknown key {cause.full_key}; allowed: {', '.join(sorted(map(str, cause.parent_node)))}"
    if cause is not error:
        text += f" {' '.join(str(cause).split())}"
    return text


def main() -> None:
    """Entry point: a user's mistake is one line on standard error, and exit status 2."""
    # Hydra then hands its exceptions to us instead of printing them on several lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        application()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        refuse(error)
    except KeyboardInterrupt:
        print("interrupted; finished chunks are kept: the same command continues", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
