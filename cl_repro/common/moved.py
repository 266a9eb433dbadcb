"""Names that code had before it was moved: a run's identity, and every file that is written, outlives them.

A `_target_` is a dotted path of Python, and identities of runs are digests of configurations with targets in them. So
an identity is made of the name that something had first, and a name that something had at any time still finds it: in
a user's YAML file, in the configurations of a results folder, in weights and in checkpoints.
"""

MOVED = {
    "cl_repro.optim": "cl_repro.engine.optim",
    "cl_repro.scenarios": "cl_repro.benchmarks.scenarios",
}
"""Old dotted path -> new one, in the order of the moves: of a package, a module or something in one.

To move code, add a line. `{"cl_repro.memory": "cl_repro.replay.memory"}` moves all that was in `cl_repro.memory`. What
moves again has another line, and no other code is given a name that is old here.
"""


def now(path: str) -> str:
    """What a dotted path is today."""
    for old, new in MOVED.items():
        if within(path, old) and not within(path, new):  # a module may have become a package of its own name
            path = new + path[len(old) :]
    return path


def first(path: str) -> str:
    """What a dotted path was before any move."""
    for old, new in reversed(MOVED.items()):
        if within(path, new):
            path = old + path[len(new) :]
    return path


def within(path: str, package: str) -> bool:
    """Whether a dotted path is that of a package or module, or of something in it, with a dot or a colon between."""
    return path == package or path.startswith((f"{package}.", f"{package}:"))
