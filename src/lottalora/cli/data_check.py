"""Which data and learned weights the default config finds here; part of `lottalora doctor`."""

import os
import zlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from lottalora.cli.finding import Check
from lottalora.cli.finding import version

DOWNLOADED = "the first run downloads it; without a network put the files there or set LOTTALORA_DATA"
UNPACKED = "unpack set-a.tar.gz of physionet.org/content/challenge-2012 there, or set LOTTALORA_DATA"
BY_HAND = "put the file there, or set LOTTALORA_DATA"
LEARNED = {  # what conf/model starts from, below the data → what to do without it
    "weights/vit_b_16-c867db91.pth": DOWNLOADED,
    "weights/distilbert-base-uncased/model.safetensors": DOWNLOADED,
    "learned/dinov2-vits14/model.safetensors": BY_HAND,
    "learned/minilm-l6/model.safetensors": DOWNLOADED,
}


def data_sets() -> Iterator[Check]:
    """Where the default config looks: LOTTALORA_DATA, else ~/.cache/lottalora."""
    if os.environ.get("LOTTALORA_DATA") == "":
        yield Check(
            name="data",
            state="broken",
            found="LOTTALORA_DATA is set, and names no folder",
            remedy="set it to the folder of the data, or unset it for ~/.cache/lottalora",
        )
    root = Path(os.environ.get("LOTTALORA_DATA") or Path.home() / ".cache" / "lottalora")
    if version("scikit-learn") is not None:
        yield Check(name="data digits", state="ok", found="comes with scikit-learn")
    yield from images(root)
    yield from graphs(root)
    yield files_like("physionet2012", root / "physionet2012", "set-a/*.txt", UNPACKED)
    yield from episodes(root / "halfcheetah")
    yield files_like("imdb", root / "imdb", "plain_text/*.parquet")
    yield from texts(root / "wikitext")
    yield from single_files(root)


def images(root: Path) -> Iterator[Check]:
    """The sets of images, by the names of all their files."""
    from lottalora.data import cifar10
    from lottalora.data import flowers102
    from lottalora.data import mnist

    for name, files in (("mnist", mnist.FILES), ("cifar10", cifar10.FILES), ("flowers102", flowers102.FILES)):
        folder, lacking = root / name / files.folder, files.missing(root / name)
        missing = f"{len(lacking)} of {len(files.sums) + len(files.folders)} files missing in {folder}"
        yield data_set(name, folder, missing if lacking else "", paths=files.present(root / name))


def graphs(root: Path) -> Iterator[Check]:
    """OGB's two sets; the features of Arxiv must be OGB's own, as data.features=official asks."""
    from lottalora.data import arxiv
    from lottalora.data import molhiv

    for name, archive in (("molhiv", molhiv.ARCHIVE), ("arxiv", arxiv.ARCHIVE)):
        folder, lacking = root / "ogb" / archive.folder, archive.missing(root / "ogb")
        missing = f"{len(lacking)} of {len(archive.names)} files missing in {folder}" if lacking else ""
        check = data_set(name, folder, missing, paths=[folder / each for each in archive.names])
        yield features(folder) if name == "arxiv" and check.state == "ok" else check


def features(folder: Path) -> Check:
    """Whether Arxiv's features are OGB's own, which data.features=structural does without."""
    from lottalora.data import arxiv

    name = "data arxiv"
    try:
        official = arxiv.official_in(folder)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        return Check(name=name, state="note", found=str(error), remedy="delete it and bring it anew")
    if official:
        return Check(name=name, state="ok", found=str(folder))
    return Check(
        name=name,
        state="note",
        found=f"{folder / arxiv.FEATURE_FILE} holds other features than OGB's own, which are the default",
        remedy="type data.features=structural, or delete that file and bring it anew",
    )


def episodes(root: Path) -> Iterator[Check]:
    """Minari's expert set, which the config takes, and the other sets that are here."""
    from lottalora.data.sources.episodes import EXPERT
    from lottalora.data.sources.episodes import local_ids

    default, here = EXPERT["minari"], sorted(local_ids(root))
    missing = "" if default in here else f"no {default} in {root}"
    yield data_set("halfcheetah", root, missing, paths=[root / default / "data/metadata.json"])
    for other in here:
        if other != default:
            path = root / other
            yield data_set("halfcheetah", f"{path}: data.id={other}", "", paths=[path / "data/metadata.json"])


def texts(root: Path) -> Iterator[Check]:
    """WikiText-103 and -2: the variant that the config takes, and the other one if it is here."""
    from lottalora.data.text import WikiText2
    from lottalora.data.text import WikiText103

    for name, kind in (("wikitext103", WikiText103), ("wikitext2", WikiText2)):
        default, *others = kind.variants
        files = [root / file for file in kind.files(default)]
        yield data_set(name, root / default, count_missing(files, root / default), paths=files)
        for other in others:
            files = [root / file for file in kind.files(other)]
            if not count_missing(files, root):
                yield data_set(name, f"{root / other}: data.variant={other}", "", paths=files)


def single_files(root: Path) -> Iterator[Check]:
    """The tokenizers and the learned weights, a file each."""
    from lottalora.data import imdb
    from lottalora.data import text

    for name in (imdb.TOKENIZER, text.TOKENIZER):
        path = root / "tokenizers" / name / "tokenizer.json"
        yield data_set("tokenizers", path, "" if path.exists() else f"no {path}", paths=[path])
    for name, remedy in LEARNED.items():
        path = root / name
        folder = name.partition("/")[0]
        yield data_set(folder, path, "" if path.exists() else f"no {path}", remedy, paths=[path])


def files_like(name: str, folder: Path, pattern: str, remedy: str = DOWNLOADED) -> Check:
    """A data set of which some file must be there."""
    paths = sorted(folder.glob(pattern))
    return data_set(name, folder, "" if paths else f"no {pattern} in {folder}", remedy, paths=paths)


def count_missing(files: Sequence[Path], folder: Path) -> str:
    """How many of the files are missing, in words; "" where none is."""
    lacking = sum(not file.exists() for file in files)
    return f"{lacking} of {len(files)} files missing in {folder}" if lacking else ""


def data_set(
    name: str, found: Path | str, missing: str, remedy: str = DOWNLOADED, *, paths: Iterable[Path] = ()
) -> Check:
    """A data set whose files are all there is opened: a file that is empty or cannot be read is named."""
    if missing:
        return Check(name=f"data {name}", state="note", found=missing, remedy=remedy)
    wrong = [said for path in paths if (said := what_is_wrong_with(path))]
    if wrong:
        remedy = "delete it and bring it anew, or make it readable"
        return Check(name=f"data {name}", state="note", found="; ".join(wrong[:3]), remedy=remedy)
    return Check(name=f"data {name}", state="ok", found=str(found))


def what_is_wrong_with(path: Path) -> str:
    """Why nothing can be read of a file; "" where the first byte can. A folder must hold something."""
    try:
        if path.is_dir():
            return "" if any(path.iterdir()) else f"{path} is empty"
        with path.open("rb") as file:
            return "" if file.read(1) else f"{path} is empty"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
