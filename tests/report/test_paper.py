import math

import pytest

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.metrics import metric_of
from lottalora.analysis.paper import lines
from lottalora.analysis.paper import numbers
from lottalora.analysis.paper import paper_number

ACCURACY = metric_of("accuracy")
MNIST = BENCHMARKS["mlp", "mnist"]


def test_paper_numbers_have_unique_keys():
    assert len(numbers()) == len(list(lines())) == 277


def test_every_benchmark_of_ours_is_one_of_the_paper():
    assert {benchmark.name for benchmark in BENCHMARKS.values()} <= {line["benchmark"] for line in lines()}


def test_accuracy_of_the_paper_comes_in_the_unit_of_our_rows():
    number = paper_number(MNIST, "medium", "scaffold", 8, ACCURACY)
    assert number.mean == pytest.approx(0.968)
    assert math.isnan(number.std)
    assert (number.n, number.table, number.all_sizes) == (2, "14", False)
    assert paper_number(MNIST, "medium", "full", None, ACCURACY).mean == pytest.approx(0.9838)


def test_average_over_sizes_stands_in_where_a_size_has_no_number_and_says_so():
    number = paper_number(MNIST, "tiny", "zero_scaffold", 2, ACCURACY)
    assert (number.mean, number.std) == (pytest.approx(0.91), pytest.approx(0.019))
    assert number.all_sizes


@pytest.mark.parametrize(
    ("size", "condition", "rank", "metric"),
    [
        ("medium", "scaffold", 64, "accuracy"),
        ("medium", "head", 0, "accuracy"),
        ("medium", "full", None, "loss"),
    ],
)
def test_what_the_paper_does_not_report_is_none(size, condition, rank, metric):
    assert paper_number(MNIST, size, condition, rank, metric_of(metric)) is None


def test_a_variant_of_the_paper_is_found_by_our_size():
    vit = BENCHMARKS["vit", "flowers102"]
    assert paper_number(vit, "base", "full", None, ACCURACY).mean == pytest.approx(0.9683)
    assert paper_number(vit, "tiny", "full", None, ACCURACY) is None
    transformer = BENCHMARKS["decision_transformer", "halfcheetah"]
    assert paper_number(transformer, "small", "resample_epoch", 8, metric_of("d4rl_score")).mean == 91.0
