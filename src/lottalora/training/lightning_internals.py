"""Uses of Lightning's private interfaces, all here; a test fails when one changes."""

from pytorch_lightning import Trainer

from lottalora.distributed.collectives import is_first


def stopping_alone(trainer: Trainer) -> Trainer:
    """The trainer, which tells no other process of a SIGTERM.

    Lightning broadcasts it from within the signal's handler. There it meets what the processes are exchanging
    at that moment, and all wait without end. The first process decides when a run stops (`Resume`), and the
    others follow when it has gone.
    """
    connector = trainer._signal_connector
    connector._sigterm_notifier_fn = lambda *_: setattr(connector, "received_sigterm", is_first())
    return trainer


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
