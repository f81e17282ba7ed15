"""`lottalora doctor` and the commands' names, in processes of their own."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from lottalora.cli import data_check
from lottalora.data import arxiv
from lottalora.data.mnist import FILES
from lottalora.results.rows import write
from tests import commands
from tests.rows.factory import make_row

TOKENIZERS = ("bert-base-uncased", "llama2-32000")
ROOT = Path(__file__).parents[2]


def doctor(home, *words, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "LOTTALORA_DATA": str(home / "data")}
    return commands.run("-m", "lottalora", "doctor", *words, env=kept | environment, cwd=home, timeout=60)


def test_doctor_says_where_it_looked_for_mnist_and_what_to_do(tmp_path):
    ran = doctor(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if "data mnist" in line]
    assert line.startswith("note")
    assert str(tmp_path / "data" / "mnist" / "MNIST" / "raw") in line
    assert "LOTTALORA_DATA" in line


def test_doctor_opens_the_files_that_it_finds(tmp_path):
    folder = tmp_path / "data" / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES.sums:
        (folder / name).write_bytes(b"1")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"")
    (tmp_path / "data" / "imdb" / "plain_text" / "a.parquet").mkdir(parents=True)
    lines = doctor(tmp_path).stdout.splitlines()
    (mnist,) = [line for line in lines if "data mnist" in line]
    assert mnist.startswith("note") and f"{folder}/t10k-labels-idx1-ubyte is empty" in mnist
    (imdb,) = [line for line in lines if "data imdb" in line]
    assert imdb.startswith("note") and "a.parquet is empty" in imdb


def test_doctor_looks_for_what_the_default_config_reads_and_names_what_else_is_there(tmp_path):
    data = tmp_path / "data"
    other = "mujoco/halfcheetah/tqc-expert-v0"
    wikitext = [f"wikitext-2-v1/{part}-00000-of-00001.parquet" for part in ("train", "validation", "test")]
    for name in (
        f"halfcheetah/{other}/data/metadata.json",
        *(f"wikitext/{file}" for file in wikitext),
        "wikitext/wikitext-2-raw-v1/test-00000-of-00001.parquet",
        "tokenizers/bert-base-uncased/tokenizer.json",
        "learned/minilm-l6/model.safetensors",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"1")
    checks = json.loads(doctor(tmp_path, "--json").stdout)
    found = {(check["state"], check["name"], check["found"]) for check in checks}
    bert, llama = (data / "tokenizers" / name / "tokenizer.json" for name in TOKENIZERS)
    assert found >= {
        ("note", "data halfcheetah", f"no mujoco/halfcheetah/expert-v0 in {data}/halfcheetah"),
        ("ok", "data halfcheetah", f"{data}/halfcheetah/{other}: data.id={other}"),
        ("note", "data wikitext103", f"4 of 4 files missing in {data}/wikitext/wikitext-103-raw-v1"),
        ("note", "data wikitext2", f"2 of 3 files missing in {data}/wikitext/wikitext-2-raw-v1"),
        ("ok", "data wikitext2", f"{data}/wikitext/wikitext-2-v1: data.variant=wikitext-2-v1"),
        ("ok", "data tokenizers", str(bert)),
        ("note", "data tokenizers", f"no {llama}"),
        ("note", "data weights", f"no {data}/weights/vit_b_16-c867db91.pth"),
        ("note", "data learned", f"no {data}/learned/dinov2-vits14/model.safetensors"),
        ("ok", "data learned", f"{data}/learned/minilm-l6/model.safetensors"),
    }


def test_doctor_knows_the_learned_weights_of_the_config():
    vit, bert = (
        OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml").model for name in ("vit", "distilbert")
    )
    assert list(data_check.LEARNED) == [
        f"weights/{vit.net.weights}",
        f"weights/{bert.sizes.pretrained.weights}/model.safetensors",
        f"learned/{vit.sizes.dinov2_s.weights}/model.safetensors",
        f"learned/{bert.sizes.minilm.weights}/model.safetensors",
    ]


@pytest.mark.parametrize(
    ("columns", "state", "words"),
    [
        (arxiv.FEATURES, "ok", ""),
        (arxiv.FEATURES, "note", "other features than OGB's own"),
        (2, "note", "begins with 3 rows of 2 numbers, not 3 of 128"),
    ],
)
def test_doctor_tells_other_features_of_arxiv_from_ogbs(tmp_path, columns, state, words):
    folder = tmp_path / "data" / "ogb" / "ogbn_arxiv"
    for name in arxiv.ARCHIVE.names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    rows = np.zeros((3, columns))
    if state == "ok":
        rows[:, [0, 1, 2, -3, -2, -1]] = arxiv.OFFICIAL
    np.savetxt(folder / arxiv.FEATURE_FILE, rows, fmt="%.4f", delimiter=",")
    (line,) = [line for line in doctor(tmp_path).stdout.splitlines() if "data arxiv" in line]
    assert line.startswith(state)
    assert words in line


def test_doctor_calls_an_empty_lottalora_data_broken(tmp_path):
    ran = doctor(tmp_path, LOTTALORA_DATA="")
    assert ran.returncode == 1
    assert "LOTTALORA_DATA is set, and names no folder  → set it to the folder of the data" in ran.stdout


WITHOUT_SUITE = """
import importlib.metadata, sys
sys.path.insert(0, {src!r})
from lottalora.cli import doctor
from lottalora.cli.main import main

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {{"hydra", "omegaconf", "yaml", "rich", "pytorch_lightning"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

def version(package, known=importlib.metadata.version):
    if package in doctor.SUITE:
        raise importlib.metadata.PackageNotFoundError(package)
    return known(package)

sys.meta_path.insert(0, Blocked())
importlib.metadata.version = version
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [("doctor",), ("plan", "rank=1"), ("status",), ("submit", "rank=1")])
def test_without_the_suite_each_command_names_what_to_install_once(tmp_path, words):
    """As after the library's plain `pip install .`; started cold, since the server has the suite imported."""
    code = WITHOUT_SUITE.format(src=str(ROOT / "src"))
    kept = os.environ | {"LOTTALORA_DATA": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=kept, capture_output=True, text=True
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1, said
    assert said.count("pip install 'lottalora[suite]'") == 1, said
    assert "Traceback" not in said
    if words[0] == "doctor":
        assert "not installed: pytorch-lightning, torchmetrics, hydra-core" in said
        assert "pip install rich" not in said


def test_doctor_looks_at_every_package_of_the_suite(tmp_path):
    suite = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["suite"]
    names = {check["name"] for check in json.loads(doctor(tmp_path, "--json").stdout)}
    assert {re.match(r"[\w-]+", need)[0] for need in suite} <= names


def test_doctor_gives_json_with_a_remedy_for_all_that_is_not_ok(tmp_path):
    checks = json.loads(doctor(tmp_path, "--json").stdout)
    assert {check["name"] for check in checks} >= {
        "python",
        "torch",
        "devices",
        "results",
        "network",
        "slurm",
    }
    assert [check for check in checks if check["state"] != "ok" and not check["remedy"]] == []


def test_doctor_finds_a_key_of_wandb_and_does_not_print_it(tmp_path):
    key = "0123456789abcdef0123456789abcdef01234567"
    ran = doctor(tmp_path, WANDB_API_KEY=key, WANDB_BASE_URL="http://127.0.0.1:9")
    assert "found; http://127.0.0.1:9 does not answer" in ran.stdout
    assert key not in ran.stdout + ran.stderr


def test_console_script_leads_to_the_commands():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"lottalora": "lottalora.cli.main:main"}


def test_bash_completion_offers_groups_and_choices(tmp_path):
    script = (
        f'set -e; PATH="{Path(sys.executable).parent}:$PATH"; cd "{ROOT}"; '
        'eval "$(python run.py -sc install=bash)"; '
        'COMP_LINE="python run.py logger=w" COMP_POINT=22 python run.py -sc query=bash'
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert ran.stdout.split() == ["logger=wandb"], ran.stderr


def test_doctor_names_rows_whose_code_is_in_no_history(tmp_path):
    write(make_row(commit="3fc16a34" * 5, config={"data": {}, "model": {"size": "medium"}}), tmp_path)
    (line,) = [
        line for line in doctor(tmp_path, "--results", tmp_path).stdout.splitlines() if " rows " in line
    ]
    assert "1 of 1 made by code that is in no history here (3fc16a34)" in line
    assert "python run.py model=mlp data=mnist model.size=medium" in line
