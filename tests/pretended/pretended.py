"""CUDA devices for tests, in a torch that was built without CUDA: `device.cpp`, and what `torch.cuda` says of it.

Import it before torch, which asks once, when it is imported, what there is. With this folder on PYTHONPATH and
PRETENDED_CUDA=1 every Python does so, processes that it starts, too.
"""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TORCH = Path(importlib.util.find_spec("torch").origin).parent  # type: ignore[union-attr,arg-type]  # not imported yet
MEMORY = 2**31  # bytes, of each device


def library() -> Path:
    """Where the compiled library is, or will be: one for every torch and every state of the source."""
    version = (TORCH / "version.py").read_bytes()
    name = hashlib.blake2b((HERE / "device.cpp").read_bytes() + version, digest_size=8).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cl_repro" / f"pretended_cuda_{name}.so"


def compiler() -> str | None:
    """A C++ compiler, if there is one."""
    return shutil.which("g++") or shutil.which("clang++")


def build() -> Path:
    """Compile it, once: a quarter of a minute."""
    made = library()
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        partial = made.with_suffix(f".{os.getpid()}")
        flags = ["-std=c++20", "-O1", "-shared", "-fPIC", f"-I{TORCH / 'include'}", f"-L{TORCH / 'lib'}"]
        linked = ["-ltorch_cpu", "-lc10", f"-Wl,-rpath,{TORCH / 'lib'}"]
        command = [compiler() or "c++", *flags, str(HERE / "device.cpp"), "-o", str(partial), *linked]
        subprocess.run(command, check=True, capture_output=True, text=True)
        partial.replace(made)
    return made


def install() -> None:
    """Load it, then torch, and let `torch.cuda` say that there are two devices."""
    if "torch" in sys.modules:
        raise ImportError("pretended CUDA comes before torch")
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(TORCH / "lib" / name), ctypes.RTLD_GLOBAL)
    ours = ctypes.CDLL(str(library()))
    for function in (ours.pretended_most, ours.pretended_held):
        function.restype = ctypes.c_int64

    import torch  # noqa: PLC0415

    def current() -> int:
        return ours.pretended_chosen()

    def index(device: Any = None) -> int:
        given = device if isinstance(device, int) else None if device is None else torch.device(device).index
        return current() if given is None else given

    def exchange(to: int) -> int:
        before = current()
        if to >= 0:
            ours.pretended_choose(to)
        return before

    def moved(self: Any, device: Any = None, non_blocking: bool = False) -> Any:
        if self.device.type == "cuda":
            return self
        host = torch.empty(0, dtype=torch.uint8).set_(self)
        return host.to(torch.device("cuda", index(device))).untyped_storage()

    said: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 2,
        "current_device": current,  # a function of Python: torch keeps them in dictionaries
        "set_device": lambda device: ours.pretended_choose(index(device)),
        "_exchange_device": exchange,
        "_maybe_exchange_device": exchange,
        "synchronize": lambda device=None: None,
        "get_device_name": lambda device=None: "pretended CUDA",
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "max_memory_allocated": lambda device=None: ours.pretended_most(),
        "memory_allocated": lambda device=None: ours.pretended_held(),
        "reset_peak_memory_stats": lambda device=None: ours.pretended_forget(),
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device="cuda": torch.get_rng_state(),
        "set_rng_state": lambda state, device="cuda": torch.set_rng_state(state),
    }
    for name, value in said.items():
        setattr(torch.cuda, name, value)
    torch.UntypedStorage.cuda = moved  # type: ignore[method-assign]
