"""`lottalora COMMAND` and `python -m lottalora COMMAND`: runs, sweeps, and what is made from their rows."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lottalora import uncaught
from lottalora.cli import analyse
from lottalora.cli import artifact
from lottalora.cli import cancel
from lottalora.cli import completion
from lottalora.cli import doctor
from lottalora.cli import export
from lottalora.cli import page
from lottalora.cli import plan
from lottalora.cli import run
from lottalora.cli import score
from lottalora.cli import size
from lottalora.cli import status
from lottalora.cli import submit
from lottalora.cli import sync
from lottalora.cli.arguments import readable_rows
from lottalora.cli.chosen import add_choice
from lottalora.cli.chosen import chosen
from lottalora.cli.chosen import refuse_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 for an error or an unreadable row, 2 for bad usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    unknown = unknown_command(arguments)
    if unknown:
        print(unknown, file=sys.stderr)
        return 2
    if arguments[:1] == ["run"]:  # its flags are Hydra's
        run.main(arguments[1:], typed="lottalora run")
        return 0
    asked = parsed(arguments)
    try:
        return COMMANDS[asked.command](asked)
    except BrokenPipeError:  # as in `… rows | head`: nobody reads on, which is no error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ModuleNotFoundError) as error:
        line = uncaught.one_line(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return uncaught.STOPPED_BY_HAND if isinstance(error, KeyboardInterrupt) else 1
    except Exception as error:
        line = said_by_hydra(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 1


def said_by_hydra(error: Exception) -> str | None:
    """The line for what cannot be made of a config, such as a net without its package; None for a bug."""
    if "hydra" not in sys.modules:  # nothing is read from a config, or the suite is not installed
        return None
    from lottalora.errors import in_one_line

    return in_one_line(error)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command; options may stand between its KEY=VALUE words, which argparse alone refuses."""
    made = parser()
    asked, more = made.parse_known_args(arguments)
    if more and ("overrides" not in asked or any(word.startswith("-") for word in more)):
        made.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        asked.overrides = [*asked.overrides, *more]
    return asked


def parser() -> argparse.ArgumentParser:
    """Return the parser of `lottalora`, with all commands."""
    made = argparse.ArgumentParser(
        prog="lottalora",
        description="Runs and sweeps; tables and figures from finished runs; the state of this machine.",
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help=run.HELP).add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    rows = commands.add_parser("rows", help="print all rows as CSV", description="Print all rows as CSV.")
    report = commands.add_parser(
        "report",
        help="print the recovery table; write tables, figures and report.html",
        description="Print the recovery tables (one for each benchmark where there are many); write them to "
        "tables/ (md, csv, tex), recovery, rank curves, families and β to figures/ (png, svg, csv), and all "
        "of it to report.html, one page by itself.",
    )
    add_choice(report)
    for command in (rows, report):
        command.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                             help="folder that holds rows/ (default: results)")  # fmt: skip
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="where all of it goes (default: as --results)"
    )
    report.add_argument("--all", action="store_true", help="print every table, however many there are")
    report.add_argument("--columns", metavar="NAME,…",
                        help="columns of the LaTeX tables, at most eight: rank,n,score,paper")  # fmt: skip
    report.add_argument("--docs", nargs="?", const=Path("."), type=Path, metavar="DIR",
                        help="instead, write the numbers of README.md and docs/ of a repository")  # fmt: skip
    report.add_argument(
        "--check", action="store_true", help="with --docs: write nothing, and fail where they are stale"
    )
    made.set_defaults(parser=made)  # completion describes all of it
    for name, module in PARTS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP, description=module.__doc__))
    for name, (help_, add, _) in ARTIFACT.items():
        add(commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}."))
    return made


def unknown_command(arguments: list[str]) -> str | None:
    """One sentence with the nearest name, if the first word is no command."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in NAMES:
        return None
    near = difflib.get_close_matches(arguments[0], NAMES, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown command {arguments[0]!r}.{meant} Known: {', '.join(sorted(NAMES))}."


def print_rows(asked: argparse.Namespace) -> int:
    """Print all rows as CSV; return 1 if one could not be read."""
    from lottalora.report.csv_text import rows_csv
    from lottalora.results.ancestry import lost_commits

    rows, problems = readable_rows(asked.results)
    sys.stdout.write(rows_csv(rows, lost_commits({row["commit"] for row in rows})))
    sys.stdout.flush()
    return 1 if problems else 0


def print_report(asked: argparse.Namespace) -> int:
    """Print the tables and, if none were chosen, write all files; return 1 if a row could not be read."""
    refuse_files(asked, "docs", "out", "columns")
    if asked.docs is not None:
        return write_docs(asked)
    if asked.check:
        raise ValueError("--check goes with --docs: lottalora report --docs --check.")
    from lottalora.report.make import blocks_of
    from lottalora.report.make import summary_of
    from lottalora.report.make import write_report
    from lottalora.report.screen import console_for_tables
    from lottalora.report.screen import files_text
    from lottalora.report.screen import show_tables
    from lottalora.results.ancestry import lost_commits

    rows, problems = readable_rows(asked.results)
    rows = chosen(rows, asked.overrides)
    lost = lost_commits({row["commit"] for row in rows})
    blocks = blocks_of(rows, lost=lost)
    summary = summary_of(rows, blocks, problems)
    console = console_for_tables()
    show_tables(blocks, console, everything=asked.all or bool(asked.overrides))
    if asked.overrides:
        console.print(f"{summary} Nothing was written.", markup=False, soft_wrap=True)
        return 1 if problems else 0
    out = asked.out or asked.results
    paths = write_report(blocks, summary, out, asked.columns.split(",") if asked.columns else None)
    paths.append(write_html(blocks, problems, asked.results, out, lost))
    console.print(f"{summary} Written:", *files_text(paths), sep="\n  ", markup=False, soft_wrap=True)
    return 1 if problems else 0


def write_docs(asked: argparse.Namespace) -> int:
    """Bring README and docs up to date with the rows or, with --check, say what is not."""
    from lottalora.report.docs import pages
    from lottalora.report.make import blocks_of

    rows, problems = readable_rows(asked.results)
    pages = (pages.stale if asked.check else pages.write)(asked.docs, blocks_of(rows))
    for path in pages:
        print(f"{path}: stale. Run: python -m lottalora report --docs" if asked.check else f"{path}: written")
    return 1 if problems or (asked.check and pages) else 0


def write_html(blocks: list, problems: list[str], results: Path, out: Path, lost: frozenset[str]) -> Path:
    """Write report.html and return its path."""
    import shlex

    from lottalora.report.page.html import write_page

    typed = ["python", "-m", "lottalora", "report", "--results", str(results)]
    typed += ["--out", str(out)] if out != results else []
    return write_page(blocks, problems, results, out, shlex.join(typed), lost)


PARTS = {
    "analyse": analyse,
    "plan": plan,
    "status": status,
    "submit": submit,
    "cancel": cancel,
    "sync": sync,
    "doctor": doctor,
    "completion": completion,
    "page": page,
    "export": export,
    "score": score,
    "size": size,
}
ARTIFACT = {  # name → help, function that adds arguments, command
    "inspect": (artifact.HELP_INSPECT, artifact.add_inspect, artifact.inspect),
    "verify": (artifact.HELP_VERIFY, artifact.add_verify, artifact.verify),
    "card": (artifact.HELP_CARD, artifact.add_card, artifact.card),
}
COMMANDS = {
    "rows": print_rows,
    "report": print_report,
    **{name: part.run for name, part in PARTS.items()},
    **{name: command for name, (_, _, command) in ARTIFACT.items()},
}
NAMES = ("run", *COMMANDS)
