"""The fingerprint of data: rows with different ones are never compared."""

import hashlib
from collections.abc import Iterable

import numpy as np
from torch import Tensor


def fingerprint(parts: Iterable[str | Tensor | np.ndarray]) -> str:
    """Return the SHA-256, in hexadecimal, over texts (UTF-8) and the bytes of arrays, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        values = part.numpy(force=True) if isinstance(part, Tensor) else part
        digest.update(values.encode() if isinstance(values, str) else np.ascontiguousarray(values))
    return digest.hexdigest()


def with_shapes(arrays: Iterable[Tensor | np.ndarray]) -> Iterable[str | Tensor | np.ndarray]:
    """Put each array's shape before it, for `fingerprint`."""
    for values in arrays:
        yield str(tuple(values.shape))
        yield values
