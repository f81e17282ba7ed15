"""A control beside Table 17: logistic regression on summary statistics of each record, on the same split.

    python scripts/control_physionet2012.py DATA/physionet2012 --split 0 1 2

With --sample in place of the folder it scores made records, which say nothing about PhysioNet and are marked.

A record becomes seven numbers of each feature: mean, standard deviation, least, greatest, first and last of
its measured values, and how often it was measured; what was never measured takes the mean of the training
part. It sees no order in time. The strength of its L2 penalty is the best of five folds of the training part.
Printed is the area under the ROC curve on the test part of each split.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lottalora.data.batches.sequences import Records
from lottalora.data.physionet2012 import FEATURES
from lottalora.data.physionet2012 import PhysioNet2012

STRENGTHS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, nargs="?", help="folder of set-a/")
    parser.add_argument("--sample", action="store_true", help="made records in place of a folder")
    parser.add_argument("--split", type=int, nargs="+", default=[0], help="data.split of the runs beside it")
    options = parser.parse_args()
    if (options.root is None) != options.sample:
        parser.error("name the folder of set-a/, such as DATA/physionet2012; or type --sample")
    marked = " on made records, not PhysioNet's" if options.sample else ""
    for split in options.split:
        data = PhysioNet2012(root=str(options.root), batch_size=1, split=split, sample=options.sample).read()
        print(f"split {split}: AUROC {control(data.train, data.test):.4f}{marked}")


def control(train: Records, test: Records) -> float:
    inputs, labels = summaries(train), train.labels.numpy()

    def score_of_folds(strength: float) -> float:
        return cross_val_score(regression(strength), inputs, labels, cv=FOLDS, scoring="roc_auc").mean()

    model = regression(max(STRENGTHS, key=score_of_folds)).fit(inputs, labels)
    return roc_auc_score(test.labels.numpy(), model.predict_proba(summaries(test))[:, 1])


def regression(strength: float) -> Pipeline:
    """Logistic regression on standardised numbers; strength is the inverse of the penalty."""
    return make_pipeline(
        SimpleImputer(),
        StandardScaler(),
        LogisticRegression(C=strength, class_weight="balanced", max_iter=2000),
    )


def summaries(records: Records) -> np.ndarray:
    """One row for each record: seven numbers of each feature, NaN where it was never measured."""
    ends = records.lengths.cumsum(0).tolist()
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of features that were never measured
        for begin, end in zip([0, *ends], ends, strict=False):
            rows.append(summary(records.inputs[begin:end].numpy()))
    return np.stack(rows)


def summary(inputs: np.ndarray) -> np.ndarray:
    measured = inputs[:, len(FEATURES) :] > 0  # (T, 41)
    values = np.where(measured, inputs[:, : len(FEATURES)], np.nan)
    count = measured.sum(0)
    first, last = measured.argmax(0), len(values) - 1 - measured[::-1].argmax(0)
    place = np.arange(len(FEATURES))
    statistics = [np.nanmean, np.nanstd, np.nanmin, np.nanmax]
    return np.concatenate(
        [*(each(values, axis=0) for each in statistics), values[first, place], values[last, place], count]
    )


if __name__ == "__main__":
    main()
