"""Print a script that completes commands, options and overrides with Tab."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lottalora.cli import manual

HELP = 'completion with Tab: eval "$(lottalora completion bash)"'
SHELLS = ("bash", "zsh")
# Overrides are completed by Hydra's own query, which knows keys and choices; a word holds its `=`.
BASH = """\
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
_lottalora_overrides() {
  local found
  found="$(COMP_LINE="lottalora ${COMP_LINE#lottalora * }" lottalora run -sc query=bash 2> /dev/null)"
  compgen -W "$found" -- "$1"
}
"""
ZSH = """\
_lottalora_overrides() {
  local line="lottalora ${${words[*]}#lottalora * }"
  compadd -Q -S '' -- ${=$(COMP_LINE="$line" lottalora run -sc query=bash 2> /dev/null)}
}
"""
OVERRIDES = {"bash": "_lottalora_overrides", "zsh": "_lottalora_overrides"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="whose words the script is in")


def run(asked: argparse.Namespace) -> int:
    """Print the completion script for the shell."""
    import shtab

    for command in commands_of(asked.parser):
        for action in command._actions:
            if action.dest == "overrides":
                action.complete = OVERRIDES
    preamble = {"bash": BASH, "zsh": ZSH}
    print(shtab.complete(asked.parser, asked.shell, preamble=preamble))
    return 0


def commands_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands."""
    found = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(found.choices.values())


def sizes_asked(arguments: Sequence[str], conf: Path) -> list[str] | None:
    """The completions of `model.size=`, where that is what Hydra's query asks for; else None.

    Hydra completes the names of groups and keys; a size is neither.

    Args:
        arguments: of the command line, as Hydra's script gives them.
        conf: folder of the config.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if not any(word.startswith("query=") for word in arguments) or line.endswith(" ") or not words:
        return None
    key, equals, _ = words[-1].partition("=")
    if key != "model.size" or not equals:
        return None
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    model = typed.get("model", "mlp")
    return [f"model.size={size}" for size in manual.sizes_of_model(model, conf)]


def show(found: Sequence[str]) -> None:
    """Print words in one line, as the shell reads them."""
    sys.stdout.write(" ".join(found) + "\n")
