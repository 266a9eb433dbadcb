"""From the bytes of an image to what a network sees."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cl_repro.common.errors import UserError
from cl_repro.common.rules import POSITIVE, is_number, require


def to_input(
    scale: float,
    device: str | torch.device,
    dtype: torch.dtype,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    shape: Sequence[int] = (),
) -> Callable[[Tensor], Tensor]:
    """The function that divides pixels by a scale, and normalises channels.

    Args:
        scale: pixels are divided by it.
        device: of the images.
        dtype: of the network's input.
        mean: of each channel, subtracted after that; None, with std, for neither.
        std: of each channel; divides what is left.
        shape: of an image; three axes if it has channels, else it is all of one.

    Returns:
        uint8 [..., *shape] -> dtype, the same shape; it never writes to its argument.

    Raises:
        UserError: a scale that no pixel can be divided by; mean or std do not fit the channels.
    """
    require("benchmark.scale", scale, POSITIVE)
    # Divisors on the device: CUDA multiplies by the reciprocal of a host scalar, which can be one rounding off.
    divisor = torch.tensor(scale, dtype=dtype, device=device)
    if mean is None and std is None:
        return lambda x: x.to(dtype, copy=True).div_(divisor)
    n = shape[0] if len(shape) == 3 else 1
    for key, values in (("mean", mean), ("std", std)):
        if not (isinstance(values, list | tuple) and len(values) == n and all(map(is_number, values))):
            rule = f"{n} finite numbers, one for each channel" if n > 1 else "1 finite number in a list"
            raise UserError(f"benchmark.{key}={values}: must be {rule} (mean and std may both be null)")
        if key == "std" and min(values) <= 0:
            raise UserError(f"benchmark.std={values}: must be above 0")
    of_channels = (n, 1, 1) if len(shape) == 3 else (1, 1)
    shift, spread = (torch.tensor(values, dtype=dtype, device=device).view(of_channels) for values in (mean, std))
    return lambda x: x.to(dtype, copy=True).div_(divisor).sub_(shift).div_(spread)
