"""Which tests one worker of pytest-xdist runs, one after the other: `pytest -n 2 --dist loadgroup`."""

import pytest

WIDE = ("module", "package", "session")  # scopes of a fixture that several tests share


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests of Slurm, which use one queue, and by file those that share a fixture."""
    for item in items:
        if item.get_closest_marker("slurm"):
            item.add_marker(pytest.mark.xdist_group("slurm"))
        elif shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


def shares_a_fixture(item: pytest.Item) -> bool:
    """Whether a fixture of this suite, of a wider scope than one test, is used."""
    definitions = item._fixtureinfo.name2fixturedefs.values()  # pytest has no public name for it
    return any(each.scope in WIDE and each.baseid for several in definitions for each in several)
