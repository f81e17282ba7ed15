"""Each family against its definition: 2²⁰ draws, with five standard errors of tolerance."""

import math

import pytest
import torch
from scipy import stats

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold import families
from lottalora.scaffold import family

SHAPE = (1024, 1024)
FAN_IN = 1 / 32  # 1/√1024

# (mean, standard deviation, largest |w|), from the definition
MOMENTS = {
    "normal": (0, FAN_IN, 4.3248 * FAN_IN),
    "truncated_normal": (0, stats.truncnorm.std(-2, 2) * FAN_IN, 2 * FAN_IN),
    "uniform": (0, 0.1 / math.sqrt(3), 0.1),
    "kaiming_normal": (0, math.sqrt(2) * FAN_IN, 4.3248 * math.sqrt(2) * FAN_IN),
    "kaiming_uniform": (0, FAN_IN / math.sqrt(3), FAN_IN),
    "xavier_normal": (0, FAN_IN, 4.3248 * FAN_IN),
    "xavier_uniform": (0, FAN_IN, math.sqrt(3) * FAN_IN),
    "laplace": (0, math.sqrt(2) * 0.1, 0.1 * math.log(2**16)),
    "gaussian_mixture": (0, math.sqrt(0.9 * 0.05**2 + 0.1 * 0.5**2), 5 * 0.5),
    "sparse_normal": (0, math.sqrt(0.8) * FAN_IN, 4.3248 * FAN_IN),
    "sparse_erdos_renyi": (0, math.sqrt(0.2) * FAN_IN, 4.3248 * FAN_IN),
    "beta": (0, 0.1 * 2 * math.sqrt(1 / 20), 0.1),
    "exponential": (0, 0.1, 0.1 * math.log(2**17)),
    "quantized_16bit": (0, FAN_IN, 4 * FAN_IN),
    "quantized_8bit": (0, math.sqrt(1 + (8 / 2**8) ** 2 / 12) * FAN_IN, 4 * FAN_IN),
    "quantized_4bit": (0, math.sqrt(1 + (8 / 2**4) ** 2 / 12) * FAN_IN, 4 * FAN_IN),
    "quantized_2bit": (0, math.sqrt(1 + 8 * 2 * stats.norm.sf(2)) * FAN_IN, 3 * FAN_IN),
    "binary": (0, FAN_IN, FAN_IN),
    "ternary": (0, FAN_IN, math.sqrt(1.5) * FAN_IN),
    "zeros": (0, 0, 0),
}
QUARTILES = {"cauchy": 0.1 * math.tan(math.pi / 4), "student_t": stats.t.ppf(0.75, 3) * FAN_IN}


def sample(name):
    return draw(Source(11, "layer", SHAPE, name)).double()


@pytest.mark.parametrize("name", sorted(MOMENTS))
def test_family_has_the_moments_and_support_of_its_definition(name):
    mean, std, limit = MOMENTS[name]
    W = sample(name)
    fourth = ((W - W.mean()) ** 4).mean().item()
    error_of_variance = math.sqrt(max(fourth - std**4, 0) / W.numel())
    assert W.mean().item() == pytest.approx(mean, abs=5 * std / 1024 + 1e-12)
    assert W.var().item() == pytest.approx(std**2, abs=5 * error_of_variance + 2e-3 * std**2)
    assert W.abs().max().item() <= limit * (1 + 1e-4)


@pytest.mark.parametrize("name", sorted(QUARTILES))
def test_heavy_tailed_family_has_the_quartiles_of_its_definition(name):
    W = sample(name).flatten()
    quarters = torch.quantile(W, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    quartile = QUARTILES[name]
    assert quarters == pytest.approx([-quartile, 0, quartile], abs=0.01 * quartile)


def test_every_family_is_tested_against_its_definition():
    elsewhere = {"orthogonal", "spectral_radius"}
    assert set(MOMENTS) | set(QUARTILES) | elsewhere == set(FAMILIES)


def test_there_are_the_22_families_of_the_paper_and_two_more():
    assert len(set(FAMILIES) - {"ternary", "zeros"}) == 22


def test_cauchy_is_clipped_at_ten_scales():
    W = sample("cauchy")
    assert W.abs().max().item() == pytest.approx(1.0)
    beyond = 2 * stats.cauchy.sf(10)
    assert (W.abs() >= 1 - 1e-6).double().mean().item() == pytest.approx(beyond, rel=0.05)


@pytest.mark.parametrize(
    ("name", "zeros"), [("sparse_normal", 0.2), ("sparse_erdos_renyi", 0.8), ("ternary", 1 / 3), ("zeros", 1)]
)
def test_sparse_family_has_its_share_of_zeros(name, zeros):
    assert (sample(name) == 0).double().mean().item() == pytest.approx(zeros, abs=0.002)


@pytest.mark.parametrize(
    ("name", "levels"), [("quantized_2bit", 4), ("quantized_4bit", 16), ("binary", 2), ("ternary", 3)]
)
def test_low_bit_family_has_its_number_of_levels(name, levels):
    assert len(torch.unique(draw(Source(11, "layer", SHAPE, name)))) == levels


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    W = draw(Source(3, "layer", shape, "orthogonal")).double()
    gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
    torch.testing.assert_close(gram, torch.eye(min(shape), dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_spectral_radius_has_that_largest_singular_value(shape):
    W = draw(Source(3, "layer", shape, "spectral_radius"))
    assert torch.linalg.matrix_norm(W, ord=2).item() == pytest.approx(0.95, rel=1e-5)


def test_only_families_with_a_factorisation_are_not_exact():
    assert {name for name, f in FAMILIES.items() if not f.exact} == {"orthogonal", "spectral_radius"}


def test_parameters_reach_the_family():
    W = draw(Source(3, "layer", SHAPE, "normal", {"std": 0.1, "fan_in": False}))
    assert W.std().item() == pytest.approx(0.1, rel=0.01)


def test_unknown_family_is_refused_with_the_nearest_names_first():
    with pytest.raises(ValueError, match="Unknown init family 'kaming_normal'. Known: kaiming_normal"):
        families.find_family("kaming_normal")


def test_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'uniform' has no parameter 'std'. It has: bound"):
        draw(Source(3, "layer", SHAPE, "uniform", {"std": 1.0}))


def test_second_family_of_one_name_is_refused():
    def normal(shape):
        return families.Law(families.quantiles("normal"))

    with pytest.raises(ValueError, match="'normal' is registered already"):
        family()(normal)


def test_share_of_zeros_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="at least 0 and below 1, got 1.5"):
        draw(Source(3, "layer", SHAPE, "sparse_normal", {"zeros": 1.5}))
