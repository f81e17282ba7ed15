"""Every row under results/rows is found again by the command that made it."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from lottalora.results import rows
from lottalora.results.command import command_of
from lottalora.results.command import overrides_of
from lottalora.results.digest import digest_of
from lottalora.results.digest import told_of
from lottalora.sweeps.cells import Composer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
FILES = sorted((RESULTS / "rows").rglob("*.json"))


@pytest.fixture(scope="module")
def composer():
    """Composes once for each choice of groups, as a sweep does."""
    before = HydraConfig.instance().cfg
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        master = hydra.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        yield Composer(hydra.config_loader, master, jobs=True)
    HydraConfig.instance().cfg = before


def test_rows_are_committed_and_each_lies_where_rows_are_read():
    assert FILES
    assert set((RESULTS / "rows").glob("*/*/*.json")) == set(FILES)


def test_digest_of_each_committed_row_follows_from_the_config_that_it_holds():
    found, _ = rows.read_all(RESULTS)
    assert [row["digest"] for row in found] == [digest_of(told_of(row["config"])) for row in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_row_is_found_by_its_command(composer, path):
    row = rows.read(path)
    cell = composer.cell(overrides_of(row))
    assert cell.problem is None, f"{command_of(row)}: {cell.problem}"
    assert cell.digest == row["digest"], (
        f"{path.relative_to(ROOT)} is not found by its command: {command_of(row)}"
    )
    assert rows.find(cell.digest, RESULTS) == path
    assert rows.path_of(cell.identity, RESULTS) == path, command_of(row)
