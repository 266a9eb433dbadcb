"""How far a long command is, on standard error: a bar in a terminal, and a line now and then where there is none."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines


class Lines(tqdm):
    """A bar whose states are lines of their own; what ends within `EVERY` seconds has none."""

    def __init__(self, **kwargs: Any) -> None:
        """`kwargs`: those of `tqdm`, but for when it draws."""
        when = {"delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY, "miniters": 0}
        super().__init__(**kwargs | when)

    def set_description(self, desc: str | None = None, refresh: bool = False) -> None:
        """What the next line begins with; it is not drawn at once."""
        super().set_description(desc, refresh=False)

    @staticmethod
    def status_printer(file: TextIO) -> Any:
        """What tqdm calls to write a state: each on a line of its own."""
        return lambda text: print(text, file=file, flush=True) if text else None


def progress_bar(**kwargs: Any) -> tqdm:
    """A bar on standard error, with the arguments of `tqdm`; `update(n)` says that n more are done."""
    return tqdm(**kwargs) if sys.stderr.isatty() else Lines(**kwargs)
