"""scripts/gpu_queue.sh runs what waits, and says when nothing is left."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "model=mlp data=digits model.size=tiny mode=scaffold rank=2 trainer.epochs=2 hydra.launcher.workers=1"


def call(folder: Path) -> str:
    (folder / "queue").write_text(f"# digits\n\n{RUN}\n")
    ran = subprocess.run(
        [ROOT / "scripts" / "gpu_queue.sh", folder / "results", "500"],
        env=os.environ | {"QUEUE": str(folder / "queue")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_finished_queue_says_so(tmp_path):
    assert call(tmp_path) == "nothing is left"
    assert len(list((tmp_path / "results").glob("rows/*/*/*.json"))) == 1
    assert call(tmp_path) == "nothing is left"
