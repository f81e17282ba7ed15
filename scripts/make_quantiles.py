"""Write scaffold/families/quantiles.safetensors: the quantile tables from which every scaffold is drawn.

T[k] = float32(F⁻¹((k + ½) / 65,536)) for k = 0 … 65,535, with F the standard form of each distribution. The
file is shipped rather than computed at import, because the tails of libm's functions differ between
platforms. Symmetric tables are stored as their upper half. Run once; the SHA-256 printed here stands in
lottalora/scaffold/families/quantiles.py, which refuses any other file.
"""

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy import stats

PATH = Path(__file__).parents[1] / "src/lottalora/scaffold/families/quantiles.safetensors"
u = (np.arange(65_536) + 0.5) / 65_536
upper = u[32_768:]


def mixture(u: np.ndarray) -> np.ndarray:
    """Quantiles of 0.9 N(0, 0.05²) + 0.1 N(0, 0.5²), by bisection to the last bit of a float64."""
    low, high = np.full_like(u, -5.0), np.full_like(u, 5.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = 0.9 * stats.norm.cdf(middle / 0.05) + 0.1 * stats.norm.cdf(middle / 0.5) < u
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


tables = {
    "normal": stats.norm.ppf(upper),
    "truncated_normal": stats.truncnorm.ppf(upper, -2, 2),  # no longer used; the file keeps its SHA-256
    "cauchy": stats.cauchy.ppf(upper),
    "laplace": stats.laplace.ppf(upper),
    "student_t3": stats.t.ppf(upper, df=3),
    "gaussian_mixture": mixture(upper),
    "beta22": 2 * stats.beta.ppf(upper, 2, 2) - 1,
    "exponential": stats.expon.ppf(u),
}
save_file({name: table.astype("<f4") for name, table in tables.items()}, PATH)
print(hashlib.sha256(PATH.read_bytes()).hexdigest(), PATH)
