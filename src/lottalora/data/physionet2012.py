"""PhysioNet 2012: the first 48 hours of 4,000 stays in intensive care.

Letters: N records, S time stamps of all of them, T time stamps of one. There are 41 features.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch

from lottalora.data.batches.sequences import Records
from lottalora.data.batches.sequences import SequenceSplits
from lottalora.data.sources.parsed import Arrays
from lottalora.data.sources.parsed import cache_folder
from lottalora.data.sources.parsed import read_once
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

DESCRIPTORS = ("Age", "Gender", "Height", "ICUType")  # stated once, at 00:00
SERIES = (
    *("Albumin", "ALP", "ALT", "AST", "Bilirubin", "BUN", "Cholesterol", "Creatinine", "DiasABP", "FiO2"),
    *("GCS", "Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "MAP", "MechVent", "Mg", "Na", "NIDiasABP"),
    *("NIMAP", "NISysABP", "PaCO2", "PaO2", "pH", "Platelets", "RespRate", "SaO2", "SysABP", "Temp"),
    *("TroponinI", "TroponinT", "Urine", "WBC", "Weight"),
)
FEATURES = {name: place for place, name in enumerate(DESCRIPTORS + SERIES)}
RECORDS = 4000
STAMP = 0.016  # hours: the grid of the time stamps, as in the public code of Latent ODE and CfC
UNKNOWN = -1.0  # what a record states for a descriptor or a weight that is not known
VERSION = 1  # of the parsed arrays; raised when reading changes them


class PhysioNet2012:
    """In-hospital death after 48 hours in intensive care: set-a of the challenge, 13.85 % of 4,000 records.

    A step of a record is a time stamp at which anything was measured. Its input is the last known value of
    each of the 41 features (0 before the first), scaled by the least and greatest value of the training part
    to 0 and 1, beside the 41 masks that say which were measured now. Four records in five are the training
    part, drawn by `split` and never by the run's seed.

    Source: I. Silva, G. Moody and others, Predicting In-Hospital Mortality of ICU Patients, Computing in
    Cardiology 2012, https://physionet.org/content/challenge-2012/1.0.0/

    Args:
        root: folder that holds set-a/ and Outcomes-a.txt.
        batch_size: records.
        split: seed of the division into 3,200 and 800 records.
        sample: 320 made records in place of the real data.
    """

    spec = DataSpec(
        in_shape=(2 * len(FEATURES),), out_dim=2, metric="auroc", higher_is_better=True, chance=0.5
    )
    train_examples = 3200

    def __init__(self, *, root: str, batch_size: int, split: int = 0, sample: bool = False) -> None:
        if type(split) is not int or split < 0:
            raise ValueError(f"data.split must be a whole number, 0 or more, got {split!r}.")
        self.root = Path(root)
        self.batch_size = batch_size
        self.split = split
        self.sample = checked_sample(sample)

    def read(self) -> SequenceSplits:
        """Both parts. Nothing is read or looked for before this call."""
        parsed = made_records() if self.sample else read_set_a(self.root)
        order = np.random.RandomState(self.split).permutation(len(parsed["labels"]))
        held_out = len(order) // 5
        train, test = np.sort(order[held_out:]), np.sort(order[:held_out])
        low, high = limits(take(parsed, train)["values"])
        return SequenceSplits(
            train=as_inputs(take(parsed, train), low, high),
            test=as_inputs(take(parsed, test), low, high),
            batch_size=self.batch_size,
        )


def limits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest measured value of each feature, (41,); 0 and 1 for one that was never measured."""
    least, greatest = np.nanmin(values, 0, initial=np.inf), np.nanmax(values, 0, initial=-np.inf)
    never = ~np.isfinite(least)
    return np.where(never, 0, least), np.where(never, 1, greatest)


def take(parsed: Arrays, records: np.ndarray) -> Arrays:
    """The same arrays, of these records only."""
    chosen = np.zeros(len(parsed["labels"]), bool)
    chosen[records] = True
    steps = np.repeat(chosen, parsed["lengths"])
    return {name: values[steps if name in ("hours", "values") else chosen] for name, values in parsed.items()}


def as_inputs(parsed: Arrays, low: np.ndarray, high: np.ndarray) -> Records:
    """Scaled, carried forward within each record, and set beside the masks: inputs (S, 82)."""
    lengths, values = parsed["lengths"], parsed["values"]
    first = np.cumsum(lengths) - lengths  # row of each record's first stamp
    measured = ~np.isnan(values)
    row = np.where(measured, np.arange(len(values))[:, None], np.repeat(first, lengths)[:, None])
    last_known = np.maximum.accumulate(row, axis=0)  # never before `first`, so never another record's
    scaled = (values - low) / np.where(high > low, high - low, 1)
    carried = np.nan_to_num(np.take_along_axis(scaled, last_known, axis=0), nan=0.0)
    elapsed = np.diff(parsed["hours"], prepend=0)
    elapsed[first] = 0
    return Records(
        torch.from_numpy(np.concatenate([carried, measured], axis=1).astype(np.float32)),
        torch.from_numpy(elapsed.astype(np.float32)),
        torch.from_numpy(lengths.astype(np.int64)),
        torch.from_numpy(parsed["labels"].astype(np.int64)),
    )


def read_set_a(root: Path) -> Arrays:
    """All records by number: hours (S,), values (S, 41) with NaN for none, lengths and labels (N,)."""
    paths, outcomes = sorted(root.glob("set-a/*.txt")), root / "Outcomes-a.txt"
    if len(paths) != RECORDS or not outcomes.exists():
        raise FileNotFoundError(
            f"PhysioNet 2012 is not at {root} (looked for Outcomes-a.txt and {RECORDS:,} files set-a/*.txt, "
            f"found {len(paths):,}). Unpack set-a.tar.gz from physionet.org/content/challenge-2012 there, "
            "with Outcomes-a.txt beside it, or name the folder above physionet2012/ with paths.data=FOLDER "
            "or LOTTALORA_DATA; data.sample=true needs no files."
        )
    texts = {path: path.read_bytes() for path in [*paths, outcomes]}
    source = hashlib.sha256()
    for path, text in texts.items():
        source.update(f"{path.name} {len(text)}\n".encode() + text)
    return read_once(
        f"physionet2012-v{VERSION}-{source.hexdigest()[:12]}.npz",
        [root, cache_folder()],
        lambda: parse_all(texts, paths, outcomes),
    )


def parse_all(texts: dict[Path, bytes], paths: list[Path], outcomes: Path) -> Arrays:
    """Parse all records; raise ValueError where one has no outcome."""
    died = parse_outcomes(outcomes, texts[outcomes])
    without = [path for path in paths if path.stem not in died]
    if without:
        raise ValueError(
            f"{outcomes} has no line for record {without[0].stem}: the files do not belong together."
        )
    records = [parse_record(path, texts[path]) for path in paths]
    return {
        "hours": np.concatenate([hours for hours, _ in records]),
        "values": np.concatenate([values for _, values in records]),
        "lengths": np.array([len(hours) for hours, _ in records]),
        "labels": np.array([died[path.stem] for path in paths]),
    }


def parse_record(path: Path, text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Stamps in hours (T,) and the mean of what was measured at each, (T, 41), NaN where nothing was."""
    stamps, places, values = [], [], []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines()[1:], start=2):
        try:
            clock, name, stated = line.split(",")
            hours, minutes = clock.split(":")
            stamp, value = round((int(hours) + int(minutes) / 60) / STAMP), float(stated)
            place = None if name == "RecordID" else FEATURES[name]
            if stamp < 0 or not math.isfinite(value):
                raise ValueError
        except (ValueError, KeyError):
            raise ValueError(
                f"{path}, line {number}: {line!r} is no measurement. Expected HH:MM,NAME,NUMBER with one of "
                "the challenge's 42 names. Unpack set-a.tar.gz anew."
            ) from None
        if place is not None and value != UNKNOWN:
            stamps.append(stamp)
            places.append(place)
            values.append(value)
    if not values:
        raise ValueError(f"{path} holds no measurement. Unpack set-a.tar.gz anew.")
    return averaged(np.array(stamps), np.array(places), np.array(values))


def averaged(stamps: np.ndarray, places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average the values per stamp and feature: hours (T,), means (T, 41), NaN for none."""
    distinct, rows = np.unique(stamps, return_inverse=True)
    shape = (len(distinct), len(FEATURES))
    cells = rows * shape[1] + places
    sums = np.bincount(cells, weights=values, minlength=math.prod(shape)).reshape(shape)
    counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
    means = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    return (distinct * STAMP).astype(np.float32), means.astype(np.float32)


def parse_outcomes(path: Path, text: bytes) -> dict[str, int]:
    """1 for each record whose patient died in hospital, else 0."""
    died = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines()[1:], start=2):
        record, *_, death = line.split(",")
        if death not in ("0", "1") or not record.isdigit():
            raise ValueError(
                f"{path}, line {number}: {line!r} does not begin with a record's number and end with 0 or 1."
            )
        died[record] = int(death)
    return died


def made_records() -> Arrays:
    """The built-in stand-in: 320 short records of noise, with a falling blood pressure where one died."""
    random = np.random.RandomState(0)
    lengths = random.randint(3, 13, 320)
    labels = (random.rand(320) < 0.25).astype(np.int64)
    hours = np.concatenate([np.sort(random.choice(48, length, replace=False)) for length in lengths])
    values = random.randn(len(hours), len(FEATURES))
    values[random.rand(*values.shape) < 0.6] = np.nan
    values[:, FEATURES["SysABP"]] = random.randn(len(hours)) - 0.3 * hours * np.repeat(labels, lengths)
    return {
        "hours": hours.astype(np.float32),
        "values": values.astype(np.float32),
        "lengths": lengths,
        "labels": labels,
    }
