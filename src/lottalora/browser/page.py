"""Write an artifact as one self-contained HTML page that rebuilds the network, checks it and runs it."""

import base64
import json
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lottalora.results.atomic_write import write_whole
from lottalora.scaffold import Artifact
from lottalora.scaffold import read
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.zstd import without_frame
from lottalora.scaffold.families.family import distribution_of

HEAD = "head.weight"  # the only matrix that the script takes from the file
DIGITS = {  # data set → mean and deviation of its pixels from 0 to 1, and the box that its digits fill
    "mnist": {"mean": 0.1307, "std": 0.3081, "box": 20, "by": "mass"},
    "digits": {"mean": 4.884 / 16, "std": 6.017 / 16, "box": 8, "by": "box"},
}


def write_page(artifact: Path, page: Path, *, overwrite: bool = False) -> int:
    """Write the page, and return its size in bytes.

    Args:
        artifact: a file that `save` or artifact=true wrote.
        page: the HTML file to write.
        overwrite: whether to replace a file of that name.

    Raises:
        FileExistsError: the page exists, and `overwrite` is False.
        OSError: it cannot be written; nothing is left of it then.
        ValueError: the artifact is damaged, or is no network that the page can run.
    """
    if page.exists() and not overwrite:
        raise FileExistsError(f"{page} exists. Name another file with --out.")
    found = read(artifact)
    refuse(found)
    text = to_html(found, artifact)
    write_whole(page, text, setting="--out FILE")
    return page.stat().st_size


def refuse(artifact: Artifact) -> None:
    """Raise ValueError for an artifact that the page cannot run, with the reason."""
    header = artifact.header
    name = header.architecture["name"] if header.architecture else "none"
    data = header.provenance.get("data", "unknown")
    if name != "mlp" or data not in DIGITS:
        raise ValueError(
            f"A page runs an mlp trained on {' or '.join(DIGITS)}, and this artifact is {name} on {data}. "
            "Make one: lottalora run model=mlp data=mnist rank=8 artifact=true."
        )
    kept = [name for name in header.keep if name != HEAD]
    if kept:
        raise ValueError(
            f"A page cannot run matrix {kept[0]!r}: it is kept, and a page keeps the head alone. Train one "
            "without it."
        )
    for matrix in header.matrices:
        reason = obstacle(matrix)
        if reason:
            raise ValueError(f"A page cannot run matrix {matrix.name!r}: {reason}. Train one without it.")


def obstacle(matrix: MatrixRecord) -> str | None:
    """Return why the page cannot run a matrix; None if it can."""
    if matrix.options:
        return f"it has the option {matrix.options[0]}"
    if matrix.stored or matrix.dtype != "float32":
        return "its W_seed is stored" if matrix.stored else f"it is {matrix.dtype}"
    source = matrix.source
    assert source is not None, "it is not stored, so it is drawn"
    if not source.exact:
        return f"family {matrix.family} has other bits on other machines"
    return None


def to_html(artifact: Artifact, path: Path) -> str:
    """The page as text, with the file, the tables and the script inside."""
    folder = resources.files("lottalora.browser")
    html, css, js = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    settings = {
        "name": path.name,
        "shipped": shipped_as(artifact),
        "data": DIGITS[artifact.header.provenance["data"]],
        "tables": tables_of(artifact),
        "examples": examples_of(artifact),
    }
    for mark, content in {
        "/*STYLE*/": css,
        "/*SCRIPT*/": js,
        "/*SETTINGS*/": json.dumps(settings, separators=(",", ":")).replace("<", "\\u003c"),
        "/*ARTIFACT*/": base64.b64encode(without_frame(path)).decode(),
    }.items():
        html = html.replace(mark, content)
    return html


def shipped_as(artifact: Artifact) -> dict[str, Any] | None:
    """Seal and size of a file whose frame the page holds decompressed; None for any other file."""
    if artifact.header.zstandard is None:
        return None
    return {"seal": artifact.sealed.seal, "bytes": artifact.sealed.size}


def tables_of(artifact: Artifact) -> list[dict[str, Any]]:
    """The tables of quantiles by matrix: {"table": packed, "multipliers": {matrix name: m}}."""
    found: dict[str, dict[str, Any]] = {}
    for matrix in artifact.header.matrices:
        shape = (matrix.shape[0] // matrix.stack, matrix.shape[1])
        distribution = distribution_of(matrix.family, shape, matrix.parameters)
        entry = found.setdefault(packed(distribution.table), {"multipliers": {}})
        entry["multipliers"][matrix.name] = float(np.float32(distribution.scale))
    return [{"table": table, **entry} for table, entry in found.items()]


def packed(table: np.ndarray) -> str:
    """A table of 65,536 float32 values as text.

    It holds the second differences of their bits, as 32-bit words, deflated: neighbours are close, so most of
    them are small, and 256 kB become about 10.
    """
    words = table.astype("<f4").view(np.uint32)
    second = np.diff(np.diff(words, prepend=np.uint32(0)), prepend=np.uint32(0))  # modulo 2³²
    return base64.b64encode(zlib.compress(second.astype("<u4").tobytes(), 9)).decode()


def examples_of(artifact: Artifact) -> list[str]:
    """The stored inputs as pixels from 0 to 255."""
    if not artifact.inputs:
        return []
    data = DIGITS[artifact.header.provenance["data"]]
    pixels = artifact.inputs[0].double().flatten(1) * data["std"] + data["mean"]
    content = (pixels * 255).round().clamp(0, 255).byte().numpy()
    return [base64.b64encode(each.tobytes()).decode() for each in content]
