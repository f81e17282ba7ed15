"""The sections of the page, in its order. For a further one write a function, and add it to SECTIONS."""

from collections.abc import Callable

from lottalora.report.analysis_sections import analysis_sections
from lottalora.report.benchmark_sections import benchmark_sections
from lottalora.report.beta_sections import beta_sections
from lottalora.report.control_sections import control_sections
from lottalora.report.cost_sections import cost_sections
from lottalora.report.section import Section
from lottalora.report.section import Shown

SECTIONS: list[Callable[[Shown], list[Section]]] = [
    control_sections,
    benchmark_sections,
    beta_sections,
    analysis_sections,
    cost_sections,
]


def sections_of(shown: Shown) -> list[Section]:
    """Return all sections of the page, in their order."""
    return [section for make in SECTIONS for section in make(shown)]
