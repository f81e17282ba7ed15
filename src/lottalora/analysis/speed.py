"""What the paper's Table 9 costs here: training steps of GPT on an NVIDIA H200, by `python -m benchmarks`.

h200.csv is its file, unchanged: batches of 32 × 128 tokens in bf16, PyTorch 2.11, commit 2cee150; while it
timed, the other runs on the machine stood still. Ours is the arm "scaffold": the equation as written, which
`fused=auto` takes on a GPU. "reference" is the same code timed once more, so it says how far times scatter.
"""

import csv
from functools import cache
from importlib.resources import files

FULL, SCAFFOLD = "full training", "scaffold"


@cache
def turns() -> dict[tuple[str, str], dict[str, str]]:
    """The lines of the file by size and arm, such as ("3M", "reference")."""
    text = files("lottalora.analysis").joinpath("h200.csv").read_text()
    return {(line["name"].split()[-1], line["arm"]): line for line in csv.DictReader(text.splitlines())}


def table_9(metric: str, size: str, *, scaffold: bool) -> float:
    """Our number for one of Table 9, by the paper's name of it: GB of 10⁹ bytes, or a ratio of tokens/s.

    Raises:
        KeyError: a metric or a size that Table 9 does not have.
    """
    if metric == "peak_gpu_gb":
        return float(turns()[size, SCAFFOLD if scaffold else FULL]["megabytes"]) / 1000
    if metric == "throughput_ratio_to_full":
        return 1 / float(turns()[size, SCAFFOLD if scaffold else FULL]["ratio"])  # of times, within a turn
    raise KeyError(metric)
