"""What a record says of where results come from."""

from cl_repro import provenance


def test_a_command_has_no_folders_of_the_machine() -> None:
    given = ["study=a b", "results_dir=/somewhere/else", "+data_dir=here", "seeds=[1,2]"]
    assert provenance.command(given) == "python -m cl_repro 'study=a b' 'seeds=[1,2]'"
    assert provenance.command(given[:2], "scripts/idea.py") == "python scripts/idea.py 'study=a b'"
