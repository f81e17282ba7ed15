"""Triton kernels for frozen weights on a GPU: drawn there, or kept as one bit each.

Nothing else in the library imports this package, and only this package imports Triton. The kernels are
functions to call; `wrap` does not choose them.
"""

try:
    import triton  # noqa: F401
except ImportError as error:
    raise ImportError("lottalora.scaffold.kernels needs Triton: pip install 'lottalora[triton]'.") from error

from lottalora.scaffold.kernels.generate import draw_on
from lottalora.scaffold.kernels.signs import pack
from lottalora.scaffold.kernels.signs import sign_linear
from lottalora.scaffold.kernels.signs import unpack

__all__ = ["draw_on", "pack", "sign_linear", "unpack"]
