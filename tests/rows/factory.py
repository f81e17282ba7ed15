"""Rows for tests: valid, small, and different where the caller says so."""

import hashlib
import json
import math

COUNTS = {"trainable": 21774, "internal_trainable": 21124, "full": 575050, "full_plus_adapters": 596174}


def make_row(**fields):
    """A row of a finished MNIST run; `digest` follows from the fields, as in a real one."""
    row = {
        "schema": 3, "model": "mlp", "size": "medium", "data": "mnist", "sample": False, "mode": "scaffold",
        "init": "normal_0.1", "rank": 8, "alpha": 8.0, "seed": 42, "backbone_seed": 42, "recipe": "paper",
        "changed": {}, "metric": "accuracy", "higher_is_better": True, "chance": 0.1, "score": 0.968,
        "validation_score": 0.97, "best_epoch": 18, "epochs": 20, "history": {}, "counts": COUNTS,
        "arms": {"scaffold_removed": 0.963}, "further": {}, "account": [], "beta": {"layers.0": 0.99},
        "beta_decay": None, "seconds": 33.0, "peak_memory_mb": 300.0, "device": "cpu",
        "versions": {"torch": "2.13.0"}, "commit": "", "data_fingerprint": "abc", "config": {},
        "finished": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    row |= fields
    score = row["score"]
    row = {"diverged": score is None or not math.isfinite(score)} | row
    text = json.dumps(row, sort_keys=True, default=str)
    return {"digest": hashlib.sha256(text.encode()).hexdigest()[:12]} | row


def make_baseline(**fields):
    counts = {"trainable": 575050, "internal_trainable": 574400, "full": 575050, "full_plus_adapters": 575050}
    empty = {"mode": "baseline", "init": "", "rank": None, "alpha": None, "backbone_seed": None}
    return make_row(**({"counts": counts, "arms": {}, "beta": {}, "score": 0.9838} | empty | fields))
