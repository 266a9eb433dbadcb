"""Import torchvision beside a torch its compiled operators were not built for.

torchvision's wheel from the package index is linked against CUDA libraries. Beside a CPU build of
torch its `_C.so` does not load, and `import torchvision` then fails with `operator torchvision::nms
does not exist`: it registers fake kernels for operators that were never defined. Defining the two
operators first is enough; they do box suppression, which no data set needs. This relies on
torchvision's internals, so it lives here alone, and only `make data` comes this way.
"""

import importlib.util
from contextlib import suppress
from functools import cache
from pathlib import Path

OPERATORS = ("nms", "qnms")
_definitions: list[object] = []  # an operator lives as long as its Library does


@cache
def prepare_torchvision() -> str:
    """Make `import torchvision` work, if it is installed; call it before that import.

    Returns:
        `absent`: not installed; `native`: its own operators load, nothing was touched;
        `shimmed`: the missing operators were defined, and raise a clear error when called.
    """
    # Imported here: verifying data that are already there needs no torch.
    import torch  # noqa: PLC0415

    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return "absent"
    for library in sorted(Path(found.submodule_search_locations[0]).glob("_C*.so")):
        with suppress(OSError):
            torch.ops.load_library(str(library))
            return "native"
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _definitions.append(fragment)
    return "shimmed"
