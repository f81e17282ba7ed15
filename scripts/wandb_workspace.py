"""Build the W&B dashboard: one saved view for each benchmark that rows exist for, over the runs of a project.

    pip install wandb-workspaces
    python scripts/wandb_workspace.py --entity USER --results results

Each view has the recovery table (made from the rows, which stay the truth), rank curves, β and the training
curves, and shows the runs of its benchmark only. A repeated call saves new views and leaves the old ones.
--dry-run prints them as JSON and sends nothing.
"""

import argparse
import json
import sys
from pathlib import Path

from lottalora.report.from_rows import blocks_of
from lottalora.report.tables import markdown
from lottalora.results import rows
from lottalora.tracking import wandb_login as account

COLUMNS = ("mode", "size", "rank", "init", "seed")  # of the row, beside its score
MISSING = "This needs the package wandb-workspaces. Type: pip install wandb-workspaces"


def main() -> int:
    """0 if every view was saved; a problem is one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", required=True, help="user or team at W&B")
    parser.add_argument("--project", default="lottalora", help="at W&B (lottalora)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="(results)")
    parser.add_argument("--dry-run", action="store_true", help="print the views, send nothing")
    asked = parser.parse_args()
    try:
        return make(asked)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def make(asked: argparse.Namespace) -> int:
    found, problems = rows.read_all(asked.results)
    if not found:
        raise FileNotFoundError(
            f"No rows in {asked.results / 'rows'}. Name another folder with --results DIR."
        )
    if not asked.dry_run and not account.has_key():
        raise ValueError(f"There is no W&B key for {account.server()} on this machine: type `wandb login`.")
    if not asked.dry_run and not account.reachable():
        raise ConnectionError(f"{account.server()} does not answer. Nothing was saved.")
    for view in views_of(found, entity=asked.entity, project=asked.project):
        if asked.dry_run:
            print(json.dumps(view._to_model().model_dump(by_alias=True, mode="json"), ensure_ascii=False))
        else:
            print(f"{view.name}: {save(view)}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def save(view) -> str:
    """The address of the saved view."""
    import wandb

    try:
        return view.save_as_new_view().url
    except wandb.errors.Error as error:  # its text may repeat the key
        raise ConnectionError(
            f"{account.server()} did not take the view ({type(error).__name__}): type `wandb login`."
        ) from error


def views_of(found: list[rows.Row], *, entity: str, project: str) -> list:
    """One view for each pair of model and data."""
    pairs = sorted({(row["model"], row["data"]) for row in found})
    return [
        view_of([row for row in found if (row["model"], row["data"]) == pair], entity=entity, project=project)
        for pair in pairs
    ]


def view_of(found: list[rows.Row], *, entity: str, project: str):
    """The view of one benchmark.

    Args:
        found: its rows, one at least.
        entity: user or team.
        project: at W&B.
    """
    try:
        import wandb_workspaces.expr as runs
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as views
    except ModuleNotFoundError as error:
        raise ValueError(MISSING) from error
    row = found[0]
    name = f"{row['model']} on {row['data']}"
    tables = [panels.MarkdownPanel(markdown=table_of(found), layout=panels.Layout(w=24, h=16))]
    sections = {
        "Recovery, from the rows": tables,
        "Rank curves": rank_curves(panels, row["metric"]),
        "β of each layer": [panels.LinePlot(title="β", x="epoch", metric_regex="beta/.*", title_y="β")],
        "Training": [
            curve(panels, metric) for metric in ("validation/score", "validation/loss", "train/loss")
        ],
    }
    return views.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[
            views.Section(name=title, panels=inside, is_open=True) for title, inside in sections.items()
        ],
        settings=views.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=views.RunsetSettings(
            filters=[runs.Tags().isin([row["model"]]), runs.Tags().isin([row["data"]])],
            pinned_columns=[*(f"config:row.value.{key}" for key in COLUMNS), "summary:test/score"],
        ),
    )


def table_of(found: list[rows.Row]) -> str:
    """The recovery tables of the report, without its heading."""
    return markdown(blocks_of(found), f"Made from {len(found)} rows.").removeprefix("# Recovery\n\n")


def rank_curves(panels, metric: str) -> list:
    """Test score over rank, one point a run; and its mean and standard deviation for each mode."""
    score = panels.SummaryMetric("test/score")
    return [
        panels.ScatterPlot(title=f"{metric} over rank", x=panels.Config("row.rank"), y=score, log_x=True),
        panels.ScatterPlot(
            title=f"{metric} over trained parameters",
            x=panels.SummaryMetric("parameters/trainable"),
            y=score,
            log_x=True,
        ),
        panels.BarPlot(
            title=f"{metric}, mean over runs of each mode",
            metrics=["test/score"],
            groupby=panels.Config("row.mode"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        ),
    ]


def curve(panels, metric: str):
    return panels.LinePlot(title=metric, x="epoch", y=[metric], title_x="epoch")


if __name__ == "__main__":
    sys.exit(main())
