import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lottalora.results import rows
from lottalora.sweeps.status import of_folder
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

NOBODY = 65534  # a user id without rights


def history(epochs):
    """One point for each epoch."""
    column = [float(epoch) for epoch in range(1, epochs + 1)]
    return {name: column for name in ("epoch", "step", "loss", "validation_score", "learning_rate")}


def test_row_reads_back_as_it_was_written(tmp_path):
    row = make_row(arms={"scaffold_removed": 0.5}, changed={"optimizer.lr": 0.01})
    assert rows.read(rows.write(row, tmp_path)) == row


def test_row_lies_under_its_model_data_and_size_and_ends_in_its_digest(tmp_path):
    row = make_row(digest="0123456789ab")
    expected = tmp_path / "rows/mlp_mnist/medium/scaffold_r8_normal_0.1_s42-0123456789ab.json"
    assert rows.write(row, tmp_path) == expected
    assert expected.is_file()


def test_name_of_a_baseline_row_has_neither_rank_nor_init(tmp_path):
    row = make_baseline(digest="0123456789ab", sample=True)
    assert rows.path_of(row, tmp_path).name == "baseline_s42_sample-0123456789ab.json"


def test_names_with_path_separators_stay_below_the_rows_folder(tmp_path):
    path = rows.path_of(make_row(model="../../etc", size="a/b"), tmp_path)
    assert path.parent.parent.parent == tmp_path / "rows"


def test_finished_run_is_found_by_its_digest(tmp_path):
    row = make_row()
    assert rows.find(row["digest"], tmp_path) is None
    path = rows.write(row, tmp_path)
    assert rows.find(row["digest"], tmp_path) == path
    assert rows.find("0" * 12, tmp_path) is None


def test_damaged_row_does_not_count_as_a_finished_run(tmp_path):
    row = make_row()
    rows.write(row, tmp_path).write_text("{")
    with pytest.raises(ValueError, match="no valid JSON"):
        rows.find(row["digest"], tmp_path)


def test_writing_again_replaces_the_row_and_leaves_no_other_file(tmp_path):
    row = make_row()
    path = rows.write(row, tmp_path)
    rows.write(row | {"seconds": 1.0}, tmp_path)
    assert os.listdir(path.parent) == [path.name]
    assert rows.read(path)["seconds"] == 1.0


def test_number_that_is_not_finite_is_stored_as_null(tmp_path):
    row = rows.read(rows.write(make_row(score=float("nan"), beta={"a": float("inf")}), tmp_path))
    assert row["score"] is None
    assert row["beta"] == {"a": None}


def test_32_processes_writing_at_once_lose_no_row(tmp_path):
    made = [make_row(seed=seed) for seed in range(32)]
    with ProcessPoolExecutor(4) as pool:
        paths = list(pool.map(rows.write, made, [tmp_path] * 32))
    assert len(set(paths)) == 32
    read, problems = rows.read_all(tmp_path)
    assert sorted(row["seed"] for row in read) == list(range(32))
    assert problems == []


def test_reader_sees_only_whole_rows_while_32_threads_write_the_same_one(tmp_path):
    row = make_row(account=[{"name": "x" * 50}] * 500)
    with ThreadPoolExecutor(32) as pool:
        written = [pool.submit(rows.write, row, tmp_path) for _ in range(64)]
        while not all(future.done() for future in written):
            found, problems = rows.read_all(tmp_path)
            assert problems == []
            assert found in ([], [row])
    assert [future.result() for future in written] == [rows.path_of(row, tmp_path)] * 64
    assert len(os.listdir(rows.path_of(row, tmp_path).parent)) == 1


def test_half_written_temporary_file_is_never_read_as_a_row(tmp_path):
    path = rows.write(make_row(), tmp_path)
    (path.parent / f".{path.stem}.00ff.tmp").write_text(path.read_text()[:100])
    read, problems = rows.read_all(tmp_path)
    assert (len(read), problems) == (1, [])


def test_truncated_row_is_named_and_the_others_are_still_read(tmp_path):
    paths = [rows.write(make_row(seed=seed), tmp_path) for seed in range(3)]
    paths[1].write_text(paths[1].read_text()[:200])
    read, problems = rows.read_all(tmp_path)
    assert sorted(row["seed"] for row in read) == [0, 2]
    assert len(problems) == 1
    assert str(paths[1]) in problems[0]
    assert "no valid JSON" in problems[0]


def test_copy_of_a_row_is_named_and_not_counted_twice(tmp_path):
    path = rows.write(make_row(), tmp_path)
    path.with_name(f"copy-{path.stem[-12:]}.json").write_text(path.read_text())
    read, problems = rows.read_all(tmp_path)
    assert len(read) == 1
    assert "repeats the run" in problems[0]


def test_order_of_rows_does_not_depend_on_the_order_of_writing(tmp_path):
    made = [make_row(seed=seed, rank=rank) for seed in range(3) for rank in (1, 8)]
    for row in made:
        rows.write(row, tmp_path / "a")
    for row in reversed(made):
        rows.write(row, tmp_path / "b")
    assert rows.read_all(tmp_path / "a") == rows.read_all(tmp_path / "b")


def test_folder_without_rows_gives_none(tmp_path):
    assert rows.read_all(tmp_path / "missing") == ([], [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 0}, "of schema 0; this version reads 1 to 3"),
        ({"score": "0.9"}, "wrong in score: '0.9' is not float or null"),
        ({"rank": 8.5}, "wrong in rank: 8.5 is not int or null"),
        ({"seed": True}, "wrong in seed: True is not int"),
        ({"sample": 0}, "wrong in sample: 0 is not bool"),
        ({"digest": "xyz"}, "'xyz' is not 12 hexadecimal digits"),
        ({"counts": {"trainable": 1}}, "wrong in counts: internal_trainable is None, not int"),
        ({"arms": {"scaffold_removed": "bad"}}, "wrong in arms: scaffold_removed is 'bad'"),
        ({"further": {"return": "high"}}, "wrong in further: return is 'high'"),
        ({"diverged": True}, "wrong in diverged: it is true, and score is 0.968"),
        ({"score": None, "diverged": False}, "wrong in diverged: it is false, and score is None"),
        ({"beta_decay": "none"}, "wrong in beta_decay: 'none' is not float or null"),
        (
            {"history": {"epoch": [1.0]}},
            "in history: learning_rate, loss, step, validation_score missing",
        ),
        ({"history": history(20) | {"colour": []}}, "wrong in history: colour missing or unknown"),
        ({"history": history(20) | {"loss": 0.5}}, "wrong in history: loss is no list of numbers"),
        ({"history": history(20) | {"loss": ["low"] * 20}}, "wrong in history: loss is no list of numbers"),
        ({"history": history(20) | {"loss": [0.5] * 19}}, r"columns of \[19, 20\] points"),
        ({"history": history(0)}, r"columns of \[0\] points, not of one to 200"),
        ({"history": history(201), "epochs": 201}, r"columns of \[201\] points, not of one to 200"),
        (
            {"history": history(20) | {"epoch": [1.0] * 20}},
            "wrong in history: its epochs do not rise",
        ),
        ({"history": history(19)}, "wrong in history: it ends at epoch 19, and epochs is 20"),
        ({"history": history(21)}, "wrong in history: it ends at epoch 21, and epochs is 20"),
        ({"colour": "red"}, "does not know: colour"),
    ],
)
def test_row_of_wrong_contents_is_refused_by_name_when_written_and_when_read(tmp_path, change, words):
    row = make_row(digest="0123456789ab") | change
    with pytest.raises(ValueError, match=words):
        rows.write(row, tmp_path)
    assert not (tmp_path / "rows").exists()
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=words) as refused:
        rows.read(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_history_that_fits_its_epochs_is_accepted(tmp_path):
    assert rows.read(rows.write(row := make_row(history=history(20)), tmp_path)) == row
    early = history(3) | {"epoch": [1.0, 2.0, 2.5]}
    row = make_row(score=None, epochs=3, history=early)
    assert rows.read(rows.write(row, tmp_path)) == row


def test_row_of_a_newer_version_is_named_as_such_and_never_to_be_deleted(tmp_path):
    path = tmp_path / "rows" / "mlp_mnist" / "medium" / "row-0123456789ab.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(make_row() | {"schema": 4, "colour": "red"}))
    _, (problem,) = rows.read_all(tmp_path)
    assert problem == (
        f"{path} was written by a newer version of lottalora (schema 4; this one reads up to 3). "
        "Update lottalora to read it; the row is as it should be."
    )


@pytest.mark.parametrize("score", [0.9, None])
def test_row_of_schema_2_is_read_as_one_without_a_history_that_diverged_if_it_has_no_score(tmp_path, score):
    row = make_row(score=score)
    later = ("history", "diverged", "beta_decay")
    old = {key: value for key, value in row.items() if key not in later} | {"schema": 2}
    path = tmp_path / "row.json"
    path.write_text(json.dumps(old))
    assert rows.read(path) == row | {"history": {}, "diverged": score is None, "beta_decay": None}
    assert json.loads(path.read_text()) == old


def test_row_of_schema_1_is_read_as_one_that_measured_nothing_further(tmp_path):
    row = make_row()
    later = ("further", "history", "diverged", "beta_decay")
    old = {key: value for key, value in row.items() if key not in later} | {"schema": 1}
    path = tmp_path / "row.json"
    path.write_text(json.dumps(old))
    assert rows.read(path) == row


@pytest.mark.parametrize("key", sorted(rows.Row.__required_keys__ - {"schema"}))
def test_row_without_one_of_its_keys_is_refused(tmp_path, key):
    row = make_row()
    del row[key]
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=f"without {key}"):
        rows.read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no valid JSON"),
        (b"[]", "a JSON list, not an object"),
        (b"\xff\xfe", "no UTF-8 text"),
        (b"null", "NoneType"),
        (b"[" * 100_000, "row.json is no usable row: it is no valid JSON"),
        (b"9" * 5000, "row.json is no usable row: it is no valid JSON"),
        (b'{"score": NaN}', "NaN is no number"),
    ],
)
def test_file_that_is_no_row_at_all_is_refused(tmp_path, content, words):
    path = tmp_path / "row.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        rows.read(path)


def test_results_path_that_is_a_file_is_refused_in_one_sentence(tmp_path):
    results = tmp_path / "results"
    results.write_text("")
    for attempt in (rows.write, rows.check_writable):
        with pytest.raises(OSError, match=r"Cannot write .*paths\.results=DIR") as refused:
            attempt(make_row(), results)
        assert "\n" not in str(refused.value)


def test_read_only_folder_is_refused_before_and_after_training_and_stays_empty():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with without_rights():
            for attempt in (rows.check_writable, rows.write):
                with pytest.raises(PermissionError, match="Cannot write .*Permission denied"):
                    attempt(make_row(), Path(folder))
        assert os.listdir(folder) == []


def test_row_that_no_one_could_read_is_refused_before_and_after_training(tmp_path):
    row = make_row(recipe=2048)
    with pytest.raises(ValueError, match="would be wrong in recipe: 2048 is not str"):
        rows.check_writable(row, tmp_path)
    with pytest.raises(ValueError, match=r"wrong in recipe: 2048 is not str\. It was not written\."):
        rows.write(row, tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


def test_check_of_a_writable_folder_leaves_no_file(tmp_path):
    rows.check_writable(make_row(), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_temporary_file_is_removed_when_the_rename_fails(tmp_path):
    row = make_row()
    target = rows.path_of(row, tmp_path)
    (target / "in the way").mkdir(parents=True)  # a folder where the row belongs
    with pytest.raises(OSError, match="Cannot write "):
        rows.write(row, tmp_path)
    assert os.listdir(target.parent) == [target.name]


@contextmanager
def without_rights():
    """Root may write anywhere, so a root's test run takes another user for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_the_row_at_its_own_path_counts_and_a_copy_with_another_score_does_not(tmp_path):
    row = make_row()
    path = rows.write(row, tmp_path)
    for name in (f"a_copy-{row['digest']}.json", f"z_copy-{row['digest']}.json"):
        (path.parent / name).write_text(json.dumps(row | {"score": 0.99}))
    found, problems = rows.read_all(tmp_path)
    assert [each["score"] for each in found] == [row["score"]]
    assert [f"repeats the run {row['digest']}, which is {path}" in each for each in problems] == [True] * 2
    assert rows.find(row["digest"], tmp_path) == path
    assert rows.read_done(tmp_path)[0][row["digest"]]["score"] == row["score"]


def test_files_that_are_no_rows_are_neither_done_nor_read(tmp_path):
    path = rows.write(make_row(), tmp_path)
    foreign = path.with_name(f"{path.stem} (copy).json")
    foreign.write_text(path.read_text())
    damaged = rows.write(make_row(seed=1), tmp_path)
    damaged.write_text("{")
    renamed = path.with_name(path.name.replace(path.stem[-12:], "0" * 12))
    renamed.write_text(path.read_text())
    done, wrong = rows.read_done(tmp_path)
    assert list(done) == [path.stem[-12:]]
    assert sorted(wrong) == sorted([damaged.stem[-12:], "0" * 12])
    assert "against its name" in wrong["0" * 12]
    found, problems = rows.read_all(tmp_path)
    assert (len(found), len(problems)) == (1, 3)
    assert f"{foreign} is no row: its name does not end in -DIGEST.json" in problems[0]
    status = of_folder(tmp_path)
    assert (status["done"], status["runs"], len(status["unreadable"])) == (1, 1, 3)
