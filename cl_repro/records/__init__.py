"""The room of results: what every CSV holds, files that survive anything, and the folder of a study. No torch.

`schema` states the columns; `csvs` writes and reads rows; `files` has atomic writes, locks and checksums; `folder` is a
results folder, `chunks` what it tells of the chunks of a study, `store` the folder whose tables grow chunk by chunk.
"""

from cl_repro.records.chunks import checkpoint_file
from cl_repro.records.csvs import Row, from_csv, to_csv
from cl_repro.records.files import (
    Lock,
    check_place,
    folder_name,
    read_bytes,
    sha256,
    verifiable,
    verified,
    write_atomically,
)
from cl_repro.records.folder import Folder, kept
from cl_repro.records.store import Store

LAUNCH = "CL_REPRO_LAUNCH"  # environment variable: names a command as typed once, for all jobs of its sweep

__all__ = [
    "LAUNCH",
    "Folder",
    "Lock",
    "Row",
    "Store",
    "check_place",
    "checkpoint_file",
    "folder_name",
    "from_csv",
    "kept",
    "read_bytes",
    "sha256",
    "to_csv",
    "verifiable",
    "verified",
    "write_atomically",
]
