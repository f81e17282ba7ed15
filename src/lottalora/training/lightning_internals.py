"""Uses of Lightning's private interfaces, all here; a test fails when one changes."""

from pytorch_lightning import Trainer


def checkpoint_state(trainer: Trainer) -> dict:
    """Return weights, optimizers, schedules, counters and callbacks, as Lightning's checkpoints hold them."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the batch that has just ended was not the last one of its optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the batch that has just ended is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def without_announced_epoch(state: dict) -> dict:
    """Drop the epoch just announced from a checkpoint state, which Lightning would count as trained."""
    for count in state["loops"]["fit_loop"]["epoch_progress"].values():
        count["ready"] = count["completed"]
    return state
