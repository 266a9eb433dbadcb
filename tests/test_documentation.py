"""docs/methods.md says what the code says."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cl_repro.config import CONF
from cl_repro.documentation import deviations, methods, tagged, target

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("made", [methods, deviations], ids=lambda made: made.__name__)
def test_the_pages_are_those_of_the_code(made):
    assert (DOCS / f"{made.__name__}.md").read_text(encoding="utf-8") == made(), "run `make docs`"


def test_every_deviation_says_from_what_and_is_a_sentence():
    entries = [line for line in deviations().splitlines() if line.startswith("- ")]
    assert len(entries) > 15
    assert all(entry.startswith("- From ") and entry.endswith(".") for entry in entries)


def test_a_deviation_ends_with_its_paragraph():
    text = '''"""A module.

DEVIATES from A, which does this
and that.
"""

def f():
    """Do it.

    - DEVIATES from B in a word.
    - Not this.
    """
    # DEVIATES from C, as
    # a comment says.
    return 1


def g():
    """DEVIATES from D."""
'''
    assert tagged(text) == [
        "from A, which does this and that.",
        "from B in a word.",
        "from C, as a comment says.",
        "from D.",
    ]


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
