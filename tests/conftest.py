"""The order in which files of tests begin; Hydra and Lightning as every command sets them up."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# The files that take longest: two workers share out the files, and neither is to end alone with one of these.
FIRST = (
    "slurm/test_slurm.py",
    "packaging/test_benchmarks.py",
    "suite/test_devices.py",
    "sweeps/test_cells.py",
    "suite/test_resume.py",
    "suite/test_bad_input.py",
    "packaging/test_readme.py",
    "suite/test_precision.py",
    "suite/test_resampling.py",
    "scaffold/test_artifact_fuzz.py",
    "sweeps/test_sweep.py",
    "sweeps/test_ensembles.py",
    "packaging/test_wheel.py",
    "tracking/test_sync.py",
    "suite/test_run.py",
    "suite/test_gpt.py",
    "suite/test_flowers102.py",
    "report/test_page.py",
    "scaffold/test_fused.py",
    "tracking/test_workspace.py",
    "tracking/test_loggers.py",
    "report/test_command_line.py",
    "rows/test_committed_rows.py",
    "scaffold/test_models.py",
)


def pytest_collectstart() -> None:
    from lottalora.tasks.imports import before_lightning

    before_lightning()  # a file of tests may import it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(str(item.path.relative_to(TESTS)), len(places)))


@pytest.fixture(scope="session", autouse=True)
def composing_with_memory() -> None:
    from lottalora.config import loader

    loader.install()
