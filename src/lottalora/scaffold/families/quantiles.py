"""The shipped quantile tables: 65,536 float32 values each, in ascending order.

T[k] = float32(F⁻¹((k + ½) / 65,536)). Looking up a uniform 16-bit k in T draws from F without arithmetic, so
the draw is the same on every machine. The price is a finite tail: |T| ≤ F⁻¹(1 − 2⁻¹⁷), which is 4.32
standard deviations for the normal.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

SIZE = 65_536
PATH = Path(__file__).with_name("quantiles.safetensors")  # made by scripts/make_quantiles.py
SHA256 = "faef3f571b3790818b468d5643d7c1005cc4b8ca7f001b7ad35ef8954b752614"


@functools.cache
def quantiles(name: str) -> npt.NDArray[np.float32]:
    """The table of one distribution in its standard form, (65536,) float32, read-only.

    Raises:
        RuntimeError: the file of tables is not the released one, so every scaffold would differ.
        KeyError: there is no table of that name.
    """
    half = _file()[name]
    table = half if half.size == SIZE else np.concatenate([-half[::-1], half])
    table.flags.writeable = False
    return table


@functools.cache
def _file() -> dict[str, npt.NDArray[np.float32]]:
    content = PATH.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{PATH.name} has SHA-256 {found}, not {SHA256}: reinstall lottalora.")
    return load(content)
