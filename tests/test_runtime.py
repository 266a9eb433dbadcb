"""Which device a process takes, on machines with none, one and several CUDA devices."""

import pytest

from cl_repro.common import runtime
from cl_repro.common.errors import UserError


@pytest.mark.parametrize(
    ("name", "index", "count", "expected"),
    [
        ("auto", None, 0, "cpu"),
        ("auto", 3, 0, "cpu"),
        ("cpu", 3, 2, "cpu"),
        ("auto", None, 1, "cuda"),
        ("auto", 3, 1, "cuda"),
        ("auto", None, 4, "cuda"),  # alone: its processes are dealt over the devices
        ("auto", 0, 4, "cuda:0"),
        ("auto", 3, 4, "cuda:3"),
        ("auto", 6, 4, "cuda:2"),
        ("cuda", 6, 4, "cuda:2"),
        ("cuda:1", 6, 4, "cuda:1"),  # as asked
    ],
)
def test_jobs_are_dealt_over_the_devices(
    name: str, index: int | None, count: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cuda_devices", lambda: count)
    assert runtime.resolve_device(name, index) == expected


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("tpu", 1, "device=tpu: must be auto, cpu, cuda or cuda:<index>"),
        ("meta", 1, "device=meta: must be auto, cpu, cuda or cuda:<index>"),
        ("cuda:x", 1, "device=cuda:x: must be auto, cpu, cuda or cuda:<index>"),
        ("cuda", 0, "device=cuda: torch sees no CUDA device here; use device=cpu or device=auto"),
        ("cuda:0", 0, "device=cuda:0: torch sees no CUDA device here; use device=cpu or device=auto"),
        ("cuda:2", 2, "device=cuda:2: must be below cuda:2, the number of CUDA devices here"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    name: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cuda_devices", lambda: count)
    with pytest.raises(UserError) as error:
        runtime.resolve_device(name)
    assert str(error.value) == message
