"""Whether a row ran the paper's protocol."""

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.report.grouping import PRECISION
from lottalora.report.grouping import recipe_of
from lottalora.report.grouping import stand_in
from lottalora.results.rows import Row


def keeps_protocol(row: Row, condition: str) -> bool:
    """Whether the row ran the paper's protocol, on the real data, with the paper's scaffold and α."""
    if not keeps_recipe(row):
        return False
    benchmark = BENCHMARKS[row["model"], row["data"]]
    return condition not in ("scaffold", "no_scaffold") or row["init"] == benchmark.init


def keeps_recipe(row: Row) -> bool:
    """The same whatever the family of W_seed.

    Steps in another precision keep it, since the paper names one for GPT alone; tables say which it was.
    """
    benchmark = BENCHMARKS.get((row["model"], row["data"]))
    changed = row["changed"].keys() - {PRECISION}
    if benchmark is None or recipe_of(row) != "paper" or changed or stand_in(row):
        return False
    return row["alpha"] is None or row["alpha"] == benchmark.alpha(row["rank"])
