"""`python run.py --help`: a manual page made from the files of conf/, so that it says what they say.

What a choice or a key means is read from the comment beside it. Hydra's own help knows the names of
groups and the composed config, but not what they mean, and needs Hydra's import. A key for help in each
file would become a part of the config, and so of rows.
"""

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

WIDTH = 100
INDENT = "  "
SCRIPT = "python run.py"
COMMAND = re.compile(r"python run\.py .*")
PLAIN = {"True": "true", "False": "false", "None": "null"}  # as YAML spells them
EVERY = re.compile(r"^Loaded by itself whenever \S+ meets [^.:]*[.:] ")  # recipe begins so
KNOB = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>[^#]*?)(?:\s+#\s*(?P<about>.*))?$")
KNOBS = {"config.yaml": "", "trainer/default.yaml": "trainer.", "logger/wandb.yaml": "logger."}
GROUPS = ("model", "data", "mode", "init", "logger")
START = """\
python run.py KEY=VALUE …           one run
python run.py -m KEY=VALUE,VALUE …  a sweep: each combination once, finished ones left out

Trains one network on one data set, on a frozen random scaffold or dense, and leaves one row of results."""
EXAMPLES = """\
python run.py data=digits rank=8                         no download, a few seconds
python run.py model.size=large rank=32 dry_run=true      where every weight goes; no training
python run.py -m mode=baseline,scaffold rank=1,2,4,8 seed=42,43
python run.py KEY=VALUE … --cfg job                      all keys of a run with their values
python run.py --hydra-help                               Hydra's own flags
python -m lottalora --help                               report, plan, status, Slurm, W&B"""
COMPLETION = """
eval "$(python run.py -sc install=bash)"                 completion of keys, choices and sizes with Tab
eval "$(lottalora completion bash)"                      the same for lottalora and its commands"""
VARIABLES = """\
LOTTALORA_DATA         folder of the data sets (~/.cache/lottalora)
LOTTALORA_TRACEBACK=1  the whole traceback of an error, not its one line
OMP_NUM_THREADS        threads that torch starts with; trainer.threads sets them for a run
WANDB_MODE=offline     as logger.mode=offline"""
FILES = """\
results/rows      one JSON file for each finished run; all tables and figures are made from them
results/runs      log and checkpoint of each run
results/failures  cause of each failed run, until a repeated command has run it"""


def is_asked(arguments: Sequence[str]) -> bool:
    """Return whether help was asked for."""
    return bool({"-h", "--help"} & set(arguments))


def show(conf: Path, *, typed: str) -> None:
    """Print the manual; exit with an error if there is no config folder."""
    if not conf.is_dir():
        sys.exit(f"error: There is no folder {conf}, of which this help is made. Put conf/ beside run.py.")
    try:
        sys.stdout.write(manual(conf, typed=typed))
        sys.stdout.flush()
    except BrokenPipeError:  # as in `run.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def manual(conf: Path, *, typed: str = SCRIPT) -> str:
    """Return the page.

    Args:
        conf: folder of the config.
        typed: how runs are started. Only a script has completion of its words.
    """
    sections = {
        "WHAT TO TYPE": START,
        "BENCHMARKS": "\n\n".join(benchmark(path, conf) for path in files(conf, "recipe")),
        "TABLES OF THE PAPER": "\n\n".join(with_command(path) for path in files(conf, "sweeps")),
        **{f"{group}=": choices(conf, group) for group in GROUPS},
        "KNOBS AND THEIR DEFAULTS": knobs(conf),
        "MORE TO TYPE": EXAMPLES + (COMPLETION if typed == SCRIPT else ""),
        "VARIABLES OF THE ENVIRONMENT": VARIABLES,
        "FILES": FILES,
    }
    page = "\n".join(f"{title}\n{textwrap.indent(text, INDENT)}\n" for title, text in sections.items())
    return page.replace(SCRIPT, typed)


def files(conf: Path, group: str) -> list[Path]:
    """Return the YAML files of a config group, sorted."""
    return sorted((conf / group).glob("*.yaml"))


def read(path: Path) -> dict:
    """Parse a YAML file."""
    import yaml  # of the suite, and every command imports this module

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast
    return yaml.load(path.read_text("utf-8"), loader)


def header(path: Path) -> list[str]:
    """The comment lines at the top of a file, without the one for Hydra."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return [line for line in lines if not line.startswith("@package")]


def benchmark(recipe: Path, conf: Path) -> str:
    """Its command, what to expect, its sizes, and what its protocol sets."""
    sizes = sizes_of(recipe.stem, conf)
    protocol = [f"{key}={value}" for key, value in settings(read(recipe))
                if "${" not in str(value)]  # fmt: skip
    parts = {"model.size": sizes, "protocol": protocol}
    lines = [f"{name}: {', '.join(words)}" for name, words in parts.items() if words]
    return "\n".join([with_command(recipe), *(textwrap.indent(wrapped(line), INDENT * 2) for line in lines)])


def sizes_of_model(model: str, conf: Path) -> list[str]:
    """The sizes of a model by its name in conf/model; [] for an unknown one."""
    path = conf / "model" / f"{model}.yaml"
    if not path.is_file():
        return []
    content = read(path)
    bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    inherited = sizes_of_model(bases[0], conf) if bases else []  # vit_random has those of vit
    own = [str(size) for size in content.get("model", content).get("sizes", [])]
    return inherited + [size for size in own if size not in inherited]


def sizes_of(pair: str, conf: Path) -> list[str]:
    """The names for model.size=, the default one first; where others choose it, none is."""
    models = [path for path in files(conf, "model") if pair.startswith(f"{path.stem}_")]
    path = max(models, key=lambda path: len(path.stem))  # vit_random before vit
    content = read(path)
    model = content.get("model", content)  # a file for the whole config, or for its part `model`
    default, sizes = str(model.get("size", "")), sizes_of_model(path.stem, conf)
    return [f"{size} (default)" for size in sizes if size == default] + [
        size for size in sizes if size != default
    ]


def settings(content: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Keys with their paths and values, without those that choose classes and versions."""
    for key, value in content.items():
        if key in ("recipe", "defaults") or key.startswith("_"):
            continue
        if isinstance(value, dict):
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", PLAIN.get(repr(value), value)


def with_command(path: Path) -> str:
    """What the header of a file says to type, and below it the rest of the header."""
    lines = header(path)
    commands = [match[0] for line in lines if (match := COMMAND.search(line))]
    text = " ".join(" ".join(COMMAND.sub("", line) for line in lines).split())
    text = EVERY.sub("", text)
    first = text[:1].upper() if text[:1].isascii() else text[:1]  # β stays β
    prose = textwrap.indent(wrapped(first + text[1:]), INDENT * 2)
    return "\n".join([*(commands or [path.stem]), prose])


def choices(conf: Path, group: str) -> str:
    """Each choice of a group with the first sentence of its header."""
    named = {path.stem: first_sentence(" ".join(header(path))) for path in files(conf, group)}
    return columns(list(named.items()))


def first_sentence(text: str) -> str:
    """Return the first sentence of a text, without its full stop."""
    return re.split(r"\.\s+(?=[^\W\d_a-z])", text, maxsplit=1)[0].rstrip(".")


def knobs(conf: Path) -> str:
    """Every key of the files of KNOBS that has a comment, with its value there."""
    found = []
    for name, prefix in KNOBS.items():
        found += [(f"{prefix}{key}={value}", about) for key, value, about in knobs_of(conf / name)]
    return columns(found)


def knobs_of(path: Path) -> Iterator[tuple[str, str, str]]:
    """Key with its path, value and comment. What stands under `hydra` and `defaults` is not for typing."""
    above: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = KNOB.match(line)
        if not match:
            continue
        depth = len(match["indent"])
        above = [*((at, key) for at, key in above if at < depth), (depth, match["key"])]
        if above[0][1] in ("hydra", "defaults") or not match["about"]:
            continue
        value = match["value"].strip()
        if value:
            yield ".".join(key for _, key in above), value, match["about"]


def columns(pairs: list[tuple[str, str]]) -> str:
    """Names on the left, wrapped words beside them."""
    width = min(34, max(len(name) for name, _ in pairs) + 2)
    lines = []
    for name, about in pairs:
        words = textwrap.wrap(about, WIDTH - len(INDENT) - width) or [""]
        if len(name) + 2 > width:
            lines.append(name)
            name = ""
        lines.append(f"{name:<{width}}{words[0]}".rstrip())
        lines += [" " * width + each for each in words[1:]]
    return "\n".join(lines)


def wrapped(text: str) -> str:
    """Wrap a text to the width of the page."""
    return "\n".join(textwrap.wrap(text, WIDTH - 3 * len(INDENT)))
