"""`python -m cl_repro`, also installed as `cl-repro`: the Hydra application."""

import sys
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

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
            raise UserError(f"arm {', '.join(own)}: {' '.join(str(error).split())}") from None
    return result


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Interpolations resolved, as plain containers."""
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise UserError(" ".join(str(error).split())) from None


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def application(cfg: DictConfig) -> None:
    """Run what was composed."""
    try:
        arms = compose_arms(cfg, list(HydraConfig.get().overrides.task))
        from cl_repro import runtime, study  # noqa: PLC0415 - after the checks that need no torch

        runtime.prepare()
        folder = study.run(arms)
        from cl_repro.analysis import report  # noqa: PLC0415

        print(report(folder.name, Path(folder).parent))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Entry point."""
    try:
        application()
    except KeyboardInterrupt:
        print("interrupted; finished chunks are kept: the same command continues", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
