"""The sections of the page, in its order. For a further one write a function, and add it to SECTIONS."""

from collections.abc import Callable

from lottalora.report.page.analysis_sections import analysis_sections
from lottalora.report.page.benchmark_sections import benchmark_sections
from lottalora.report.page.beta_sections import beta_sections
from lottalora.report.page.control_sections import control_sections
from lottalora.report.page.cost_sections import cost_sections
from lottalora.report.page.section import Section
from lottalora.report.page.section import Shown

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
