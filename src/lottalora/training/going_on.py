"""Whether a run goes on from the state that an earlier process has left, or starts anew."""

import logging
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import torch

from lottalora.distributed.collectives import broadcast
from lottalora.distributed.collectives import is_first
from lottalora.training.best_epoch import BEST
from lottalora.training.best_epoch import Best
from lottalora.training.checkpoints import UNKNOWN
from lottalora.training.checkpoints import Resume

Parts = Callable[[dict], tuple[dict, Sequence[tuple[Best, list[float]]]] | None]
log = logging.getLogger(__name__)


def usable(resume: Resume, best: Best) -> Path | None:
    """The checkpoint of a run to go on from, if there is one, in all processes of the run the same."""

    def parts(state: dict) -> tuple[dict, Sequence[tuple[Best, list[float]]]]:
        parts = state["callbacks"]
        return parts[Resume.__name__], [(best, parts[Best.__name__]["scores"])]

    found = is_first() and state_or_anew(resume, [best], parts) is not None
    return broadcast(resume.path if found else None)


def state_or_anew(resume: Resume, bests: Sequence[Best], parts: Parts) -> dict | None:
    """The state to go on from; without one, remove what an earlier run has left.

    Args:
        resume: whose file holds the state.
        bests: all whose weights lie beside it.
        parts: what `Resume.about` gave for this state, and the scores of those whose weights it needs; None
            for a state of other runs.
    """
    state = checked(resume, parts) if resume.path.exists() else None
    if state is None:
        for path in (resume.path, *(best.path for best in bests)):
            path.unlink(missing_ok=True)
    return state


def checked(resume: Resume, parts: Parts) -> dict | None:
    """The state that is there, or None where the run cannot go on from it, which is said.

    Raises:
        ValueError: the state is of a run with another config.
    """
    path = resume.path
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = parts(state)
        if found is None:
            return None
        about, needed = found
        foreign = [best.path for best, scores in needed if not best.belongs_to(scores)]
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        aside = path.with_suffix(".damaged")
        os.replace(path, aside)
        log.warning("%s or %s beside it cannot be read (%s): set aside as %s, the run starts anew.",
                    path, BEST, type(error).__name__, aside.name)  # fmt: skip
        return None
    if about["run"] != path.parent.name:
        raise ValueError(
            f"{path} is of another run, {about['run']}, which had another config. Put it back, or delete it "
            "and repeat the command: the run starts anew."
        )
    if foreign:
        log.warning("%s holds the weights of another training than %s: the run starts anew.",
                    foreign[0], path)  # fmt: skip
        return None
    return state if may_go_on(resume, about) else None


def may_go_on(resume: Resume, about: Mapping) -> bool:
    """Whether the run goes on: with force=true, from the state of the same forced run alone.

    That is one by the same code, or by the same job before Slurm put it back into the queue.
    """
    before, (now,) = about.get("commits", UNKNOWN)[-1], resume.commits
    if resume.forced and not (about.get("forced") and (before == now or is_requeued(about))):
        log.info("force=true: %s was not written by this forced run, which starts anew", resume.path)
        return False
    log.info("going on from %s", resume.path)
    if before != now:
        log.warning("%s was written at %s, and the code is now at %s: the row will name both. "
                    "With force=true the run starts anew.", resume.path, said(before), said(now))  # fmt: skip
    return True


def is_requeued(about: Mapping) -> bool:
    """Whether this process is a later start of the Slurm job that wrote the state."""
    started_again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return started_again and about.get("job") == os.environ.get("SLURM_JOB_ID")


def said(commit: str) -> str:
    """A commit in words."""
    return f"commit {commit}" if commit else "an unknown commit"
