"""docs/methods.md says what the code says."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cl_repro.config import CONF
from cl_repro.documentation import methods, target

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"


def test_the_page_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == methods(), "run `make docs`"


@pytest.mark.parametrize("group", ["method", "fisher", "memory"])
def test_every_choice_has_its_configuration_and_its_source(group):
    text = methods()
    for path in (CONF / group).rglob("*.yaml"):
        name = path.relative_to(CONF / group).with_suffix("").as_posix()
        assert f"# {group}={name}\n{path.read_text(encoding='utf-8').strip()}\n```" in text
        module, _, factory = target(path).rpartition(".")
        assert f"\n{factory}(" in text
        assert f"`{'/'.join(module.split('.')[1:])}.py`" in text


def test_a_file_that_builds_on_another_has_its_factory():
    child = CONF / "method" / "der_plus_plus.yaml"
    assert "_target_" not in OmegaConf.load(child)
    assert target(child) == "cl_repro.methods.der.der"
