"""Records of intensive care: what a line becomes, what never mixes, and what is refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lottalora.data.physionet2012 import FEATURES
from lottalora.data.physionet2012 import PhysioNet2012
from lottalora.data.physionet2012 import as_inputs
from lottalora.data.physionet2012 import limits
from lottalora.data.physionet2012 import parse_outcomes
from lottalora.data.physionet2012 import parse_record
from lottalora.data.physionet2012 import take
from lottalora.data.sources.parsed import read_once

ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "physionet2012")
real = [
    pytest.mark.data,
    pytest.mark.skipif(not (ROOT / "Outcomes-a.txt").exists(), reason=f"PhysioNet 2012 is not at {ROOT}"),
]
HEADER = "Time,Parameter,Value\n00:00,RecordID,132539\n"
HR, TEMP, HEIGHT = FEATURES["HR"], FEATURES["Temp"], FEATURES["Height"]


@pytest.fixture(scope="module")
def set_a():
    return PhysioNet2012(root=str(ROOT), batch_size=128).read()


@pytest.fixture(scope="module")
def sample():
    return PhysioNet2012(root="nowhere", batch_size=16, sample=True).read()


def parsed(*lines: str):
    return parse_record(Path("132539.txt"), (HEADER + "\n".join(lines)).encode())


def two_records():
    """Two records of two stamps; each measures the heart rate once, the second of them late."""
    values = np.full((4, len(FEATURES)), np.nan, np.float32)
    values[:, TEMP] = 37
    values[0, HR], values[3, HR] = 60, 100
    return {
        "hours": np.array([0, 1, 2, 5], np.float32),
        "values": values,
        "lengths": np.array([2, 2]),
        "labels": np.array([0, 1]),
    }


def test_there_are_41_features_and_as_many_masks():
    assert len(FEATURES) == 41
    assert PhysioNet2012.spec.in_shape == (82,)


def test_measurements_of_one_stamp_are_averaged_and_stamps_are_multiples_of_0_016_hours():
    hours, values = parsed("00:07,HR,60", "00:07,HR,70", "00:07,Temp,37", "01:30,HR,80")
    assert hours == pytest.approx([7 * 0.016, 94 * 0.016])
    assert values[:, HR].tolist() == [65, 80]
    assert values[0, TEMP] == 37
    assert np.isnan(values[1, TEMP])


def test_a_value_of_minus_1_is_no_measurement():
    _, values = parsed("00:00,Height,-1", "00:00,HR,60")
    assert np.isnan(values[0, HEIGHT])


@pytest.mark.parametrize(
    "line",
    ["00:07,HR", "07,HR,60", "00:07,HR,high", "00:07,HR,nan", "00:07,Pulse,60", "", "00:07,HR,60,60"],
)
def test_a_line_that_cannot_be_read_is_refused_with_file_and_line_number(line):
    with pytest.raises(ValueError, match=r"132539.txt, line 4: .* is no measurement. Expected HH:MM"):
        parsed("00:07,HR,60", line, "00:09,HR,60")


def test_a_record_without_a_measurement_is_refused_by_name():
    with pytest.raises(ValueError, match="132539.txt holds no measurement"):
        parsed()


def test_an_outcome_that_is_neither_0_nor_1_is_refused_with_file_and_line_number():
    with pytest.raises(ValueError, match=r"Outcomes-a.txt, line 3: '132540,16,8,8,-1,' does not begin with"):
        parse_outcomes(Path("Outcomes-a.txt"), b"RecordID,...\n132539,6,1,5,-1,0\n132540,16,8,8,-1,\n")


def test_a_value_is_carried_forward_within_its_record_only_and_is_0_before_the_first():
    records = two_records()
    low, high = limits(records["values"])
    inputs = as_inputs(records, low, high).inputs
    records["values"][0, HR] = 80  # the least value is no longer 60, but the limits stay
    later = as_inputs(records, low, high).inputs
    assert inputs[:, HR].tolist() == [0, 0, 0, 1]
    assert later[:, HR].tolist() == [0.5, 0.5, 0, 1]
    assert inputs[:, 41 + HR].tolist() == [1, 0, 0, 1]


def test_a_feature_that_never_changes_is_0_and_its_mask_says_that_it_was_measured():
    records = two_records()
    inputs = as_inputs(records, *limits(records["values"])).inputs
    assert inputs[:, TEMP].tolist() == [0, 0, 0, 0]
    assert inputs[:, 41 + TEMP].tolist() == [1, 1, 1, 1]


def test_time_is_counted_from_the_step_before_and_anew_in_each_record():
    records = two_records()
    assert as_inputs(records, *limits(records["values"])).elapsed.tolist() == [0, 1, 0, 3]


def test_a_part_holds_the_steps_of_its_own_records():
    part = take(two_records(), np.array([1]))
    assert part["hours"].tolist() == [2, 5]
    assert part["labels"].tolist() == [1]


def test_the_limits_of_the_scale_are_those_of_the_training_part(sample):
    assert float(sample.train.inputs[:, :41].min()) == 0
    assert float(sample.train.inputs[:, :41].max()) == 1
    assert float(sample.test.inputs[:, :41].max()) > 1


def test_the_stand_in_is_split_four_to_one_and_has_no_validation_part(sample):
    assert (len(sample.train.labels), len(sample.test.labels)) == (256, 64)
    assert sample.validation_batches() is None


def test_another_split_is_another_fingerprint_and_the_same_one_is_the_same(sample):
    again, other = (
        PhysioNet2012(root="nowhere", batch_size=16, split=split, sample=True).read() for split in (0, 1)
    )
    assert again.fingerprint() == sample.fingerprint()
    assert other.fingerprint() != sample.fingerprint()


def members(batches) -> list[list[int]]:
    return [each.tolist() for each in batches.index()]


def test_an_epoch_holds_every_record_once_and_little_padding(sample):
    batches = sample.train_batches(seed=1)
    assert sorted(sum(members(batches), [])) == list(range(256))
    steps = sum(int(x.lengths.sum()) for x, _ in batches)
    assert steps > 0.8 * sum(x.elapsed.numel() for x, _ in batches)


def test_batches_are_a_function_of_seed_and_epoch(sample):
    one, same, other = (sample.train_batches(seed) for seed in (1, 1, 2))
    torch.rand(3)
    assert members(one) == members(same) != members(other)
    labels = [label.tolist() for _, label in one]
    assert [label.tolist() for _, label in same] == labels
    one.sampler.set_epoch(1)
    assert members(one) != members(same)


def test_a_batch_holds_the_steps_of_its_records_and_zeros_behind_them(sample):
    x, label = sample.train.batch(torch.tensor([5, 0]))
    begin, length = int(sample.train.lengths[:5].sum()), int(sample.train.lengths[5])
    assert torch.equal(x.inputs[0, :length], sample.train.inputs[begin : begin + length])
    assert x.lengths.tolist() == sample.train.lengths[[5, 0]].tolist()
    assert not x.inputs[0, length:].any()
    assert label.tolist() == sample.train.labels[[5, 0]].tolist()


@pytest.mark.parametrize("split", [-1, 0.5, True])
def test_a_split_that_is_no_whole_number_is_refused(split):
    with pytest.raises(ValueError, match="data.split must be a whole number, 0 or more, got"):
        PhysioNet2012(root="nowhere", batch_size=16, split=split)


def test_data_that_are_not_there_are_refused_with_what_to_type(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"looked for Outcomes-a.txt and 4,000 files set-a/\*.txt, found 0"
    ):
        PhysioNet2012(root=str(tmp_path), batch_size=16).read()


def test_what_was_read_once_is_not_made_again(tmp_path):
    made = []
    folders = [Path("/proc/none"), tmp_path / "kept"]
    for _ in range(2):
        arrays = read_once("a.npz", folders, lambda: made.append(1) or {"x": np.arange(3)})
        assert arrays["x"].tolist() == [0, 1, 2]
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a.npz"]


def test_a_damaged_file_of_what_was_read_is_made_anew(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK")
    assert read_once("a.npz", [tmp_path], lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]


def test_arrays_that_cannot_be_kept_are_still_given_and_it_is_said(caplog):
    assert read_once("a.npz", [Path("/proc/none")], lambda: {"x": np.arange(3)})["x"].tolist() == [0, 1, 2]
    assert "a.npz cannot be kept in /proc/none: it is made anew by each run." in caplog.text


class TestRealRecords:
    pytestmark = real

    def test_3200_records_are_trained_on_and_800_are_scored(self, set_a):
        assert (len(set_a.train.labels), len(set_a.test.labels)) == (3200, 800)
        assert int(set_a.train.labels.sum() + set_a.test.labels.sum()) == 554

    def test_the_longest_record_has_203_stamps(self, set_a):
        assert max(int(set_a.train.lengths.max()), int(set_a.test.lengths.max())) == 203

    def test_data_and_split_are_those_of_the_recorded_rows(self, set_a):
        assert set_a.fingerprint() == "b53f1a6d49592c0369e7738d0cdcbe78449371c681a41b5b83e16b9e966fd6ae"
