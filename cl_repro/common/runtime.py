"""What has to be set in a process before torch computes anything, and what is asked of the machine."""

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cl_repro.common.errors import UserError


def prepare() -> None:
    """One thread, denormals flushed, freed memory kept; CUDA exact and repeatable. Call it first, in every process.

    Two threads per process are several times slower on a busy machine; Adam's moments of dead units become denormal
    numbers (up to 6.9x slower steps); and glibc returns every block over 32 MiB at most to the kernel, so that each
    step pays page faults for its temporaries (8 % of a step of a 784-400-400-10 MLP). On CUDA products are not rounded
    to TF32, and convolutions add in one order: processes that train one first task, each for itself, have the same.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 2**30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def deterministic(wanted: bool, device: str) -> None:
    """Let torch compute on CUDA only what is the same to the last bit in every run, or anything; for the whole process.

    An operation that has no such kernel then raises. cuBLAS reads the variable before its first product, and processes
    that this one starts inherit it.
    """
    wanted = wanted and device.startswith("cuda")
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let CUDA round the factors of products and convolutions to TF32 (10 bits of mantissa) meanwhile, or not."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32 = convolutions.allow_tf32 = allowed
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def resolve_device(name: str, index: int | None = None) -> str:
    """The device of a process.

    Args:
        name: `auto` (cuda where there is one, else cpu), `cpu`, `cuda` or `cuda:<index>`.
        index: of a job or worker process that shares the machine with others: they are dealt over the CUDA devices.

    Returns:
        `cpu`, `cuda` (the process has all CUDA devices) or `cuda:<index>`.

    Raises:
        UserError: another name, or a device that is not there.
    """
    n = cuda_devices()
    try:
        device = torch.device(("cuda" if n else "cpu") if name == "auto" else name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name}: must be auto, cpu, cuda or cuda:<index>")
    if device.type == "cuda" and not n:
        raise UserError(f"device={name}: torch sees no CUDA device here; use device=cpu or device=auto")
    if device.type == "cuda" and (device.index or 0) >= n:
        raise UserError(f"device={name}: must be below cuda:{n}, the number of CUDA devices here")
    if str(device) == "cuda" and index is not None and n > 1:
        return f"cuda:{index % n}"
    return str(device)


def cuda_devices() -> int:
    """CUDA devices this process may use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def hardware(device: str) -> str:
    """What the device is, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {cores()} cores, 1 thread per process"


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def clock(device: str) -> float:
    """Seconds of work so far, for differences.

    On a CPU: processor seconds of this process, which has one thread, so that other programs on the machine do not
    count. On CUDA: wall seconds, after all queued work is done.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory(device: str) -> int:
    """Bytes: the most this process has held on the device so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # Linux: ru_maxrss starts at what the process that started this one had held
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
