"""ensemble=true: which cells are packed, and what the real command makes of them."""

import os
import signal
import time
from pathlib import Path

import pytest

from lottalora.results import rows
from lottalora.sweeps import packs
from lottalora.sweeps.cells import Cell
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("data=digits", "model.size=tiny", "trainer.accelerator=cpu")
EQUAL = ("digest", "seed", "init", "recipe", "changed", "counts", "epochs", "best_epoch",
         "diverged", "beta_decay", "data_fingerprint", "device")  # fmt: skip


def start(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return commands.start(ROOT / "run.py", *words, *WORDS, cwd=folder, env=environment)


def said_by(folder, *words) -> tuple[int, str]:
    process = start(folder, *words)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def cell(digest: str, **common) -> Cell:
    return Cell(overrides=(digest,), identity={"digest": digest}, common=common)


def digests_of(found: list[packs.Pack]) -> list[list[str]]:
    return [[each.digest for each in pack.cells] for pack in found]


def test_cells_with_the_same_settings_are_packed_and_the_others_run_alone():
    cells = [cell("a", rank=1), cell("b", rank=2), cell("c", rank=1), cell("d", rank=4)]
    found = packs.ensembles(cells, todo={"a", "b", "c"})
    assert digests_of(found) == [["a", "c"], ["b"]]
    assert [bool(pack.name) for pack in found] == [True, False]


def test_a_repeated_sweep_has_the_same_ensembles_without_what_is_done():
    cells = [cell(str(number)) for number in range(3)]
    (whole,), (rest,) = (packs.ensembles(cells, todo) for todo in ({"0", "1", "2"}, {"1"}))
    assert whole.name == rest.name
    assert digests_of([rest]) == [["1"]]


def test_many_cells_make_ensembles_of_equal_size():
    cells = [cell(str(number)) for number in range(2 * packs.LARGEST + 1)]
    sizes = [len(pack.cells) for pack in packs.ensembles(cells, {each.digest for each in cells})]
    assert sum(sizes) == len(cells)
    assert max(sizes) - min(sizes) <= 2
    assert len(sizes) == 3


def test_cells_of_which_no_two_fit_are_refused_by_the_keys_that_differ():
    cells = [cell("a", rank=1, width=8), cell("b", rank=2, width=8)]
    with pytest.raises(
        ValueError, match=r"no two cells of one shape: they differ in rank\. .*seed.*lr alone"
    ):
        packs.ensembles(cells, {"a", "b"})


def test_runs_are_counted_in_the_singular_and_the_plural():
    one, several = (packs.Pack(cells=(cell("a"),) * count, name=name) for count, name in ((1, ""), (3, "x")))
    assert packs.packs_text([one]) == "no ensembles; 1 run alone"
    assert packs.packs_text([several, one, one]) == "ensembles of 3 runs; 2 runs alone"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ensemble=true",), "without -m there is one run"),
        (("-m", "rank=1,2", "ensemble=true"), "they differ in scaffold.rank"),
        (
            ("-m", "mode=resample_epoch", "seed=1,2", "trainer.precision=bf16-mixed", "ensemble=true"),
            "cannot have resample=epoch, trainer.precision=bf16-mixed",
        ),
    ],
)
def test_what_no_ensemble_can_be_is_refused_in_one_line(words, said, tmp_path):
    code, errors = said_by(tmp_path, *words)
    assert code == 1
    assert said in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not rows.read_all(tmp_path / "results")[0]


def assert_same_rows(ours: list[dict], theirs: list[dict]) -> None:
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for key in EQUAL:
            assert row[key] == other[key], key
        assert row["score"] == pytest.approx(other["score"], abs=3e-3)  # one image of 360
        losses, expected = ([loss or 0 for loss in each["history"]["loss"]] for each in (row, other))
        assert losses == pytest.approx(expected, rel=1e-4)
        assert row["arms"].keys() == other["arms"].keys()


def stopped(folder, pattern: str, *words) -> None:
    """Start a command, and stop it as soon as it has left such a file."""
    process = start(folder, *words, "trainer.checkpoint_every=0", "trainer.epochs=60")
    end = time.monotonic() + 100
    while not list(folder.glob(pattern)) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not list(folder.glob("results/rows/*/*/*.json")), "it had ended before the signal came"


def test_an_ensemble_leaves_alone_what_a_stopped_single_run_of_its_cell_needs(tmp_path):
    stopped(tmp_path, "results/runs/*_s1-*/best.ckpt", "seed=1")
    (best,) = tmp_path.glob("results/runs/mlp*/best.ckpt")
    kept = best.read_bytes()
    stopped(tmp_path, "results/runs/**/*_s2-*/best.ckpt", "-m", "seed=1,2", "ensemble=true")
    assert best.read_bytes() == kept
    assert len(list(tmp_path.glob("results/runs/ensemble-*/*/best.ckpt"))) == 2


@pytest.mark.slow
def test_a_stopped_ensemble_goes_on_and_leaves_the_rows_of_single_runs(tmp_path):
    words = ("-m", "seed=1,2", "optimizer.lr=0.001,1e30", "trainer.epochs=12")
    folders = [tmp_path / name for name in ("alone", "together")]
    for folder in folders:
        folder.mkdir()
    code, errors = said_by(folders[0], *words)
    assert code == 0, errors
    words += ("ensemble=true",)
    process = start(folders[1], *words, "trainer.checkpoint_every=0")
    end = time.monotonic() + 100
    while not list(folders[1].glob("results/runs/ensemble-*/resume.ckpt")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not list(folders[1].glob("results/rows/*/*/*.json")), "it had ended before the signal came"
    code, errors = said_by(folders[1], *words)
    assert code == 0, errors
    (log,) = folders[1].glob("results/runs/ensemble-*/log.txt")
    assert "going on from" in log.read_text()
    assert not list(folders[1].glob("results/runs/*/resume.ckpt"))
    (alone, _), (together, _) = (rows.read_all(folder / "results") for folder in folders)
    assert_same_rows(together, alone)
    assert sum(row["diverged"] for row in together) == 2
    assert {row["config"]["ensemble"] for row in together} == {4}
