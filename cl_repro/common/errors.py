"""The one exception a user's mistake raises, and how every entry point ends: one line with the value and the rule."""

import argparse
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


class UserError(ValueError):
    """Bad input (a key, a value, a file, a pair). Entry points print it as one line and exit with status 2."""


class OutOfMemoryError(UserError):
    """A device has no memory for what was asked of it; half as many replicas may fit."""


class ElsewhereError(UserError):
    """What jobs of other machines need cannot be measured on this one; the text says why."""


class Parser(argparse.ArgumentParser):
    """Of a command line; what is wrong with it is told in one line, as a `UserError`."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`, where argparse would print and exit."""
        raise UserError(f"{self.prog}: {message}")


def existing_folder(text: str) -> Path:
    """The type of an argument: a folder that is there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: must be a folder that is there")
    return Path(text)


@contextmanager
def told(place: Path, what: str) -> Iterator[None]:
    """A context of which what the system refuses is one line: the place, what cannot be done with it, and why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: {what}: {error.strerror or error}") from error


def visible(text: str) -> str:
    """Text with what a terminal would obey, instead of showing it, written out as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def refuse(text: str) -> NoReturn:
    """One line on standard error, exit status 2."""
    print(f"error: {visible(text)}", file=sys.stderr)
    sys.exit(2)


class Skipping:
    """Work on folder after folder, of which a bad one must not keep the others from being done."""

    def __init__(self, named: bool = True) -> None:
        """`named`: the user has asked for these very folders, so that the first bad one ends the command."""
        self.named = named
        self.skipped: list[str] = []

    @contextmanager
    def attempt(self, folder: Path) -> Iterator[None]:
        """What is done with one folder: whatever is wrong with it is told, and it is left out."""
        try:
            yield
        except Exception as error:
            if self.named:
                raise
            if not isinstance(error, UserError):
                traceback.print_exc()  # our mistake, which stays visible
            if str(folder) not in self.skipped:
                print(visible(f"skipped {folder}: {error}"), file=sys.stderr)
                self.skipped.append(str(folder))

    def end(self) -> None:
        """Raise a `UserError` that lists what was skipped, if anything was."""
        if self.skipped:
            raise UserError(f"skipped {', '.join(self.skipped)}; the rest is done")


@contextmanager
def entry_point() -> Iterator[None]:
    """Refuse what a user did wrong, and end without a word where nobody reads any more, as in `... | head`.

    Who interrupts it reads one line.
    """
    try:
        yield
        if sys.stdout:  # not closed, as by `>&-`
            sys.stdout.flush()  # here, not after the last line of Python
    except UserError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept: the same command continues", file=sys.stderr)
        sys.exit(130)  # what a shell says of a program that SIGINT ended
    except BrokenPipeError:
        if not_read():
            # Python flushes once more when it ends: into nothing, then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)  # what a shell says of a program that SIGPIPE ended
        raise


def not_read() -> bool:
    """Whether the reader of standard output has gone; a pipe to a worker process may break as well."""
    if not sys.stdout:
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
