"""Several cells of a sweep in one process: claims → data → nets → fit together → scores → rows."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from lottalora import build
from lottalora.artifacts import learned
from lottalora.config.identity import portable
from lottalora.data.spec import DataSpec
from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.results.schema import row_of
from lottalora.scaffold import Account
from lottalora.tasks.imports import before_lightning


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run that is asked for: its config, the part of its row that names it, the overrides that make it."""

    cfg: DictConfig
    identity: dict
    overrides: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return rows.run_folder(self.identity, Path(self.cfg.paths.results))


def run(asked: Sequence[Asked], name: str) -> None:
    """Train and score these runs at once and write their rows, but for those that exist or are run elsewhere.

    Args:
        asked: runs that differ in what the members of an ensemble may differ in.
        name: of the ensemble's folder under RESULTS/runs.
    """
    results = Path(asked[0].cfg.paths.results)
    folder = results / "runs" / name
    with ExitStack() as held:
        mine = []
        for each in asked:
            digest = each.identity["digest"]
            rows.check_writable(each.identity, results)
            other = held.enter_context(claims.claimed(digest, results, log_file=folder / "log.txt"))
            if other:
                claims.log_skipped(rows.run_name(each.identity), other)
            elif each.cfg.force or not rows.is_done(digest, results):
                mine.append(each)
        for each in mine:
            noted = {"overrides": each.overrides, "log_file": folder / "log.txt"}
            held.enter_context(failures.recorded(each.identity["digest"], results, **noted))
        if mine:
            train(mine, folder)


def train(asked: Sequence[Asked], folder: Path) -> None:
    """Read the data, build the nets, fit them together, and write the row of each."""
    before_lightning()
    from lottalora.training import fit
    from lottalora.training.checkpoints import remove
    from lottalora.training.ensemble.fit import Ensemble
    from lottalora.training.measure import measure
    from lottalora.training.resampling import Resampling

    first = asked[0].cfg
    data = instantiate(first.data)
    built = [built_alone(each, data.spec, folder / each.folder.name) for each in asked]
    splits = data.read()
    ensemble = Ensemble(
        [run for run, _ in built],
        splits,
        fit.TrainerSettings.of(first.trainer),
        higher_is_better=data.spec.higher_is_better,
        folder=folder,
        forced=first.force,
    )
    fitted = ensemble.fit()
    for each, (run, account), result in zip(asked, built, fitted, strict=True):
        remove_scaffold = each.cfg.remove_scaffold
        measured = measure(run.task, splits, result, resampling=Resampling(), remove_scaffold=remove_scaffold)
        config = portable(each.cfg) | {"ensemble": len(asked)}
        identity = each.identity | learned.fingerprint(each.cfg)
        row = row_of(identity, measured, data.spec.scoring(), stacked(account), config)
        path = rows.write(row, Path(first.paths.results))
        remove(each.folder)  # of a single run, which has stopped
        remove(run.folder)
        rows.log_end(row, path, hint=False)
    remove(folder)


def stacked(account: Account) -> dict:
    """The account as rows hold it: the form of what is adapted is that of an ensemble."""
    whole = account.as_dict()
    forms = [{"form": "stacked" if entry["place"] == "adapt" else ""} for entry in whole["entries"]]
    return whole | {"entries": [entry | form for entry, form in zip(whole["entries"], forms, strict=True)]}


def built_alone(asked: Asked, spec: DataSpec, folder: Path) -> tuple["Run", Account]:  # noqa: F821  imported late
    """Set the member up as a single run begins: the same weights and the same random state.

    Its best weights lie in a folder of its own within the ensemble's, since the single run of the same cell,
    which may have stopped, has others.
    """
    from lottalora.training.ensemble.members import Run
    from lottalora.training.ensemble.members import generator_in

    cfg = asked.cfg
    build.set_up_torch(cfg.trainer, seed=cfg.seed)
    net, account = build.build(cfg, spec)
    task = instantiate(cfg.task, net, spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    generator = generator_in(torch.get_rng_state())
    return Run(task=task, seed=cfg.seed, generator=generator, folder=folder), account
