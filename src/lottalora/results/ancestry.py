"""Which rows name a commit that the history of this code does not have."""

import subprocess
from collections.abc import Collection
from collections.abc import Iterable
from pathlib import Path

DIRTY = "-dirty"


def lost_commits(commits: Iterable[str], repository: Path = Path(__file__).parent) -> frozenset[str]:
    """Those of `commits`, as rows name them, that are no ancestors of HEAD: their code cannot be looked up.

    A tree with changes is known by the commit that it started from. Nothing counts as lost where it cannot be
    known: outside of a repository, and in one whose history is shallow.

    Args:
        commits: as `provenance.commit` gives them; "" was made outside of a repository and is never lost.
        repository: a folder inside it.
    """
    history = ancestors(repository)
    if history is None:
        return frozenset()
    return frozenset(commit for commit in commits if commit and commit.removesuffix(DIRTY) not in history)


def commit_state(commit: str, lost: Collection[str]) -> str:
    """Whether the code of a row can be looked up: known, changed, lost or untracked.

    Args:
        commit: as the row names it.
        lost: of `lost_commits`.
    """
    if not commit:
        return "untracked"
    if commit in lost:
        return "lost"
    return "changed" if commit.endswith(DIRTY) else "known"


def ancestors(repository: Path) -> frozenset[str] | None:
    """HEAD and every commit before it; None where unknown, as in a folder without tracked files."""
    if not git("ls-files", folder=repository):
        return None
    if git("rev-parse", "--is-shallow-repository", folder=repository) != ["false"]:
        return None
    found = git("rev-list", "HEAD", folder=repository)
    return None if found is None else frozenset(found)


def git(*words: str, folder: Path) -> list[str] | None:
    """The lines that git prints; None where it fails or is not installed."""
    try:
        answer = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.split()
