"""How many processes a launcher has started, known before torch is imported."""

import os
import sys

RUN = (sys.executable, "-P", "-m", "lottalora", "run")  # from any folder; -P: no module is imported from that


def launched() -> int:
    """How many processes torchrun or srun has started for this run; 0 if it is for us to start them."""
    if "RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))  # of srun; a batch script's own step has one
    return tasks if tasks > 1 else 0
