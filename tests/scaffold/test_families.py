"""Each family against its definition: 2²⁰ draws, with five standard errors of tolerance."""

import math

import pytest
import torch
from scipy import integrate
from scipy import stats

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Distribution
from lottalora.scaffold import Scaffold
from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold import family
from lottalora.scaffold.families.family import find_family
from lottalora.scaffold.families.quantiles import quantiles

SHAPE = (1024, 1024)
FAN_IN = 1 / 32  # 1/√1024


def clipped_std(law, clip):
    """Of X ~ law, symmetric about 0, clipped to ± clip: E[X²; |X| ≤ c] + c² P(|X| > c), by quadrature."""
    inside, _ = integrate.quad(lambda x: x * x * law.pdf(x), -clip, clip)
    return math.sqrt(inside + clip**2 * 2 * law.sf(clip))


# name → mean, standard deviation, largest |w| of the parameters in Table 13, before any scaling
SCALED = {
    "uniform": (0, 0.1 / math.sqrt(3), 0.1),
    "cauchy": (0, 0.1 * clipped_std(stats.cauchy, 10), 1.0),
    "laplace": (0, math.sqrt(2) * 0.1, 0.1 * math.log(2**16)),
    "gaussian_mixture": (0, math.sqrt(0.9 * 0.05**2 + 0.1 * 0.5**2), 5 * 0.5),
    "beta": (0, 0.1 * 2 * math.sqrt(1 / 20), 0.1),
    "exponential": (0, 0.1, 0.1 * math.log(2**17)),
}
FACTORS = {
    "standardised": lambda std: FAN_IN / std,
    "multiplied": lambda std: FAN_IN,
    "literal": lambda std: 1.0,
}
# (mean, standard deviation, largest |w|), from the definition
MOMENTS = {
    "normal": (0, FAN_IN, 4.3248 * FAN_IN),
    "truncated_normal": (0, clipped_std(stats.norm, 2) * FAN_IN, 2 * FAN_IN),
    "kaiming_normal": (0, FAN_IN / math.sqrt(3), 4.3248 / math.sqrt(3) * FAN_IN),
    "kaiming_uniform": (0, FAN_IN / math.sqrt(3), FAN_IN),
    "xavier_normal": (0, FAN_IN, 4.3248 * FAN_IN),
    "xavier_uniform": (0, FAN_IN, math.sqrt(3) * FAN_IN),
    "sparse_normal": (0, math.sqrt(0.8) * FAN_IN, 4.3248 * FAN_IN),
    "sparse_erdos_renyi": (0, math.sqrt(0.8) * FAN_IN, 4.3248 * FAN_IN),
    "quantized_16bit": (0, FAN_IN, 4 * FAN_IN),
    "quantized_8bit": (0, math.sqrt(1 + (8 / 2**8) ** 2 / 12) * FAN_IN, 4 * FAN_IN),
    "quantized_4bit": (0, math.sqrt(1 + (8 / 2**4) ** 2 / 12) * FAN_IN, 4 * FAN_IN),
    "quantized_2bit": (0, math.sqrt(1 + 8 * 2 * stats.norm.sf(2)) * FAN_IN, 3 * FAN_IN),
    "binary": (0, FAN_IN, FAN_IN),
    "ternary": (0, FAN_IN, math.sqrt(1.5) * FAN_IN),
    "zeros": (0, 0, 0),
}
QUARTILES = {
    "cauchy": stats.cauchy.ppf(0.75) * FAN_IN / clipped_std(stats.cauchy, 10),
    "student_t": stats.t.ppf(0.75, 3) * FAN_IN,
}


def sample(name, **parameters):
    return draw(Source(11, "layer", SHAPE, name, parameters)).double()


@pytest.mark.parametrize("name", sorted(MOMENTS))
def test_family_has_the_moments_and_support_of_its_definition(name):
    assert_moments(sample(name), *MOMENTS[name])


@pytest.mark.parametrize("scaling", FACTORS)
@pytest.mark.parametrize("name", SCALED)
def test_scaled_family_has_the_moments_and_support_of_its_scaling(name, scaling):
    mean, std, limit = SCALED[name]
    factor = FACTORS[scaling](std)
    assert_moments(sample(name, scaling=scaling), mean, std * factor, limit * factor)


@pytest.mark.parametrize("name", SCALED)
def test_scaled_family_is_standardised_unless_told_otherwise(name):
    assert torch.equal(sample(name), sample(name, scaling="standardised"))
    fan_in_of_four = draw(Source(11, "layer", (200_000, 4), name)).double()
    assert fan_in_of_four.std().item() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("clip", [1, 10, 100])
def test_clipped_cauchy_is_standardised_at_every_clip(clip):
    """The tables end at 20,861, beyond each of these clips."""
    assert_moments(sample("cauchy", clip=clip), 0, FAN_IN, clip * FAN_IN / clipped_std(stats.cauchy, clip))


def assert_moments(W, mean, std, limit):
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
    assert set(MOMENTS) | set(SCALED) | set(QUARTILES) | elsewhere == set(FAMILIES)


def test_there_are_the_22_families_of_the_paper_and_two_more():
    assert len(set(FAMILIES) - {"ternary", "zeros"}) == 22


def test_cauchy_is_clipped_at_ten_scales():
    W = sample("cauchy", scaling="literal")
    assert W.abs().max().item() == pytest.approx(1.0)
    beyond = 2 * stats.cauchy.sf(10)
    assert (W.abs() >= 1 - 1e-6).double().mean().item() == pytest.approx(beyond, rel=0.05)


def test_truncated_normal_is_clipped_at_exactly_two_standard_deviations():
    W = sample("truncated_normal")
    assert W.min().item() == -2 * FAN_IN
    assert W.max().item() == 2 * FAN_IN
    for edge in (-2 * FAN_IN, 2 * FAN_IN):
        assert (W == edge).double().mean().item() == pytest.approx(stats.norm.sf(2), rel=0.05)
    inside = W.abs() < 2 * FAN_IN
    normal = draw(Source(11, "layer", SHAPE, "truncated_normal", {"clip": 100})).double()
    assert torch.equal(W[inside], normal[inside])


def test_clip_scales_with_the_standard_deviation():
    assert sample("truncated_normal", std=0.5, clip=1.0).max().item() == 0.5 * FAN_IN


@pytest.mark.parametrize(
    ("name", "zeros"), [("sparse_normal", 0.2), ("sparse_erdos_renyi", 0.2), ("ternary", 1 / 3), ("zeros", 1)]
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
        find_family("kaming_normal")


def test_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'uniform' has no parameter 'std'. It has: bound, scaling"):
        draw(Source(3, "layer", SHAPE, "uniform", {"std": 1.0}))


@pytest.mark.parametrize("scaling", ["standard", True, None, ["literal"]])
def test_unknown_scaling_is_refused_with_the_three_known_ones(scaling):
    known = "of init family 'cauchy'. Known: standardised, multiplied, literal.$"
    with pytest.raises(ValueError, match=known):
        Scaffold(rank=1, family="cauchy", parameters={"scaling": scaling})


def test_family_with_one_reading_has_no_scaling():
    with pytest.raises(ValueError, match="'normal' has no parameter 'scaling'. It has: std, fan_in"):
        Scaffold(rank=1, parameters={"scaling": "literal"})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"std": "wide"}, "std of init family 'normal' must be a number, int or float, got 'wide'"),
        ({"std": None}, "std of init family 'normal' must be a number, int or float, got None"),
        ({"std": True}, "std of init family 'normal' must be a number, int or float, got True"),
        ({"std": math.nan}, "std of init family 'normal' must be a finite number, got nan"),
        ({"fan_in": 1}, "fan_in of init family 'normal' must be true or false, got 1"),
        ({"fan_in": "no"}, "fan_in of init family 'normal' must be true or false, got 'no'"),
    ],
)
def test_value_of_another_kind_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Scaffold(rank=1, parameters=parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("uniform", {"bound": 0.2}), ("laplace", {"scale": 1}), ("exponential", {"rate": 1.0})],
)
def test_scale_that_standardising_would_cancel_is_refused(name, parameters):
    with pytest.raises(ValueError, match=f"has no effect on init family '{name}' if scaling='standardised'"):
        sample(name, **parameters)
    assert sample(name, **parameters, scaling="multiplied").std() > 0


@pytest.mark.parametrize("name", ["cauchy", "truncated_normal"])
@pytest.mark.parametrize("clip", [0, -1.0, math.inf, math.nan])
def test_clip_that_is_no_positive_number_is_refused(name, clip):
    with pytest.raises(ValueError, match="clip must be a finite number above 0, got"):
        sample(name, clip=clip)


@pytest.mark.parametrize("rate", [0, -1.0, math.nan])
def test_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be a number above 0, got"):
        sample("exponential", rate=rate, scaling="literal")


def test_second_family_of_one_name_is_refused():
    def normal(shape):
        return Distribution(quantiles("normal"))

    with pytest.raises(ValueError, match="'normal' is registered already"):
        family()(normal)


def test_share_of_zeros_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="at least 0 and below 1, got 1.5"):
        draw(Source(3, "layer", SHAPE, "sparse_normal", {"zeros": 1.5}))
