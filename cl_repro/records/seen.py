"""How far a growing file has been read, and its checksum up to there."""

import hashlib
from pathlib import Path
from typing import Any

BLOCK = 1 << 20  # bytes read at a time


class Seen:
    """The beginning of a CSV that has been read: how long it is, and its checksum, which can go on."""

    def __init__(self, size: int = 0, checksum: Any = None) -> None:
        """`size` bytes that have this `checksum`; by default none have been read."""
        self.size, self.checksum = size, checksum or hashlib.sha256()

    def further(self, data: bytes) -> "Seen":
        """The beginning that is longer by `data`."""
        checksum = self.checksum.copy()
        checksum.update(data)
        return Seen(self.size + len(data), checksum)

    def up_to(self, path: Path, size: int) -> "Seen":
        """With what follows in the file, as far as it goes."""
        now = self
        with open(path, "rb") as file:
            file.seek(self.size)
            while now.size < size and (data := file.read(min(BLOCK, size - now.size))):
                now = now.further(data)
        return now
