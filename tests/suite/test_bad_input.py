"""Each mistake gives one line that begins with `error: `, and leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from lottalora import uncaught
from lottalora.build import check_rank
from lottalora.cli import manual
from lottalora.cli.main import main
from lottalora.config.check import check
from lottalora.data.mnist import FILES
from lottalora.errors import in_one_line
from lottalora.models.mlp import MLP
from lottalora.sweeps.plan import plan
from lottalora.sweeps.slurm.submit import check_lead
from lottalora.sweeps.slurm.submit import check_numbers
from tests import commands

ROOT = Path(__file__).resolve().parents[2]


def only_line(finished) -> str:
    """The one line on standard error; any other outcome than one line and a failure is reported whole."""
    lines = finished.stderr.splitlines()
    assert finished.returncode == 1, finished.stderr
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    assert finished.stdout == ""
    return lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model=mpl", "Unknown model 'mpl'. Known: mlp"),
        ("data=mnits", "Unknown data 'mnits'. Known: mnist"),
        ("mode=scafold", "Unknown mode 'scafold'. Known: scaffold"),
        ("init=kaming_normal", "Unknown init 'kaming_normal'. Known: kaiming_normal"),
        (
            "recipe=mlp_mnits",
            "Unknown recipe 'mlp_mnits': conf/recipe has none of that name. Known: mlp_mnist",
        ),
        ("model.size=mediun", "Unknown model.size 'mediun'. Known: medium"),
        ("trainer.epoch=3", "Unknown key 'trainer.epoch'. Nearest: trainer.epochs"),
        ("modle=mlp", "Unknown key 'modle'. Nearest: mode, model"),
        ("rnk=3", "Unknown key 'rnk'. Nearest: rank"),
        (
            "resample.scaffolds=4",
            "'resample.scaffolds' in this mode. Modes that have it: gated, resample_batch, ",
        ),
        (
            "mode=resample_epoch resample.fresh=false",
            "Modes that have it: gated, resample_batch, resample_microbatch.",
        ),
        ("+trainer.epoch=3", "'+trainer.epoch=3' adds or removes a key"),
        ("rank=-1", "rank must be a whole number, 0 or more, got -1"),
        ("rank=1.5", "rank must be a whole number, 0 or more, got 1.5"),
        ("trainer.devices=0", "trainer.devices must be a whole number, 1 or more, got 0"),
        ("trainer.strategy=dpp", "trainer.strategy must be ddp or fsdp, got 'dpp'"),
        (
            "trainer.devices=2 trainer.strategy=fsdp mode=lora",
            "mode=lora keeps those that the model has. Type trainer.strategy=ddp.",
        ),
        (
            "trainer.devices=2 trainer.strategy=fsdp mode=baseline",
            "trainer.strategy=fsdp shares out frozen weights, and mode=baseline has none",
        ),
        (
            "mode=[scaffold,baseline] data=digits",
            "'mode=[scaffold,baseline]' names several files of conf/mode, and a run takes one. Type mode=",
        ),
        ("data=[mnist,digits]", "Type data=NAME, or `lottalora run -m data=mnist,digits` for a run of each."),
        ("rank=1,2", "Ambiguous value for argument 'rank=1,2'"),
        ("alpha=0", "alpha must be a number above 0, got 0"),
        ("alpha=-2", "alpha must be a number above 0, got -2"),
        ("seed=-1", "seed must be a whole number, 0 or more, got -1"),
        ("trainer.epochs=0", "trainer.epochs must be a whole number, 1 or more, got 0"),
        ("trainer.min_delta=null", "trainer.min_delta must be a number, 0 or more, got None"),
        ("trainer.average=mean", "trainer.average must be null or ema or swa, got 'mean'"),
        (
            "model=vit data=flowers102 trainer.average=swa",
            "task.average=0.9997 averages the weights already. Type trainer.average=null",
        ),
        (
            "model=gpt data=text data.vocabulary=12 dry_run=true",
            "data.vocabulary must be null, for Llama's 32,000 entries, or a whole number from 257 to 65,536",
        ),
        ("table14", "'table14' is no KEY=VALUE. Type sweeps=table14."),
        ("paths.data=~/foo", "'paths.data=~/foo' cannot be read. Quote unusual values"),
        (
            "model=gpt data=wikitext2 data.variant=raw dry_run=true",
            "Unknown data.variant 'raw'. Known: wikitext-2-raw-v1",
        ),
        ("optimizer.lr=fast", "optimizer.lr must be a number above 0, got 'fast'"),
        ("model.net.dropout=1.5", "model.net.dropout must be a number from 0 to below 1, got 1.5"),
        ("model=distilbert data=imdb model.net.attention_dropout=x", "model.net.attention_dropout must be"),
        ("schedule.T_max=x", "schedule.T_max must be a number, got 'x'"),
        ("optimizer=null", "'optimizer' holds no settings"),
        ("mode=head rank=4", "mode=head has no adapter, so it contradicts rank=4"),
        ("mode=zero init=binary", "mode=zero sets every W_seed to 0, so it contradicts init="),
        ("mode=scaffold rank=0", "rank=0 would train no adapter. Type mode=head"),
        ("recipe_name=paper trainer.epochs=1", "recipe_name='paper' is kept for unchanged recipes"),
        ("recipe_name=2048 data=digits", "recipe_name must be null or a word, got 2048. Type one that is"),
        ("recipe_name=true data=digits", "recipe_name must be null or a word, got True. Type one that is"),
        (
            "data=digits recipe.name=7",
            "'recipe.name=7' is for the recipe's file to set. Type recipe_name=NAME.",
        ),
        ("schedule.T_max=0", "schedule.T_max must be a number above 0, got 0."),
        ("dry_run=jsn", "dry_run must be true or false or json, got 'jsn'"),
        ("lr=0.1", "Unknown key 'lr'. Nearest: optimizer.lr."),
        ("sweeps=digits dry_run=true", "sweeps=digits names many runs, and without -m there is one"),
        ("model.net._target_=lottalora.models.mlpp.MLP dry_run=true", "_target_ 'lottalora.models.mlpp.MLP'"),
        ("model.net._target_=torch.nn.Linear dry_run=true", "unexpected keyword argument 'dropout'"),
        (
            "rank=785 dry_run=true",
            "rank=785 is beyond every dimension of this model, of which the largest is 784",
        ),
    ],
)
def test_a_mistyped_command_line_is_refused_in_one_line(command, tmp_path, words, said):
    assert said in only_line(command(*words.split()))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"seed={2**64}", "seed must be 0 … 2**64 - 1, got 18446744073709551616"),
        (f"backbone_seed={2**70}", "backbone_seed must be 0 … 2**64 - 1"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay must be a number, 0 or more, got -1"),
        ("optimizer.weight_decay=null", "optimizer.weight_decay must be a number, 0 or more, got None"),
        ("init.parameters.std=0", "init.parameters.std must be a number above 0, got 0"),
        ("init.parameters.std=-0.1", "init.parameters.std must be a number above 0, got -0.1"),
        ("init=uniform init.parameters.bound=nan", "init.parameters.bound must be a number above 0, got nan"),
        ("paths.data=null", "paths.data must name a folder, got None. Type paths.data=FOLDER"),
        ("paths.data=", "paths.data must name a folder, got ''"),
        ("paths.results=", "paths.results must name a folder, got ''"),
        ("paths.results=2026", "paths.results must name a folder, got 2026"),
        ("model.keep=null", "model.keep must be a list of patterns, got None. Type model.keep=[]"),
        ("model.freeze=null", "model.freeze must be a list of patterns, got None. Type model.freeze=[]"),
        ("model.keep=head", "model.keep must be a list of patterns, got 'head'. Type model.keep=[head]"),
        (
            "model=gin data=molhiv model.keep=[atoms,7]",
            "model.keep must be a list of patterns, got ['atoms', 7]",
        ),
        ("mode=small model.keep=head", "Type model.keep=[head]"),
        ("trainer.threads=9999999", "trainer.threads must be 1 … 1024, got 9999999"),
        ("trainer.patience=0.5", "trainer.patience must be a whole number, 1 or more, or null, got 0.5"),
        ("trainer.patience=0", "trainer.patience must be a whole number, 1 or more, or null, got 0"),
        (
            "hydra.launcher=foo",
            "hydra.launcher holds the settings of a launcher, got 'foo'. Type hydra/launcher",
        ),
        ("remove_scaffold=5", "remove_scaffold must be true or false, got 5"),
        ("resample=3", "'resample=3' is for mode= to set. Leave it out, and type mode=NAME"),
        ("resample=epoch", "'resample=epoch' is for mode= to set"),
        ("scaffold=null", "'scaffold=null' is for mode= to set"),
        ("mode=resample_batch resample.every=part", "is for mode= to set. Leave it out, and type mode=NAME"),
        ("scaffold.rank=2", "'scaffold.rank=2' is for mode= to set. Type rank=VALUE."),
        ("scaffold.family=binary", "is for mode= to set. Type init.family=VALUE."),
        ("scaffold.dora=true", "is for mode= to set. Type adapter.dora=VALUE."),
        ("mode=small budget.rank=2", "'budget.rank=2' is for mode= to set. Type rank=VALUE."),
        ("mode=small budget.keep=[head]", "is for mode= to set. Type model.keep=VALUE."),
        ("recipe.name=paper", "'recipe.name=paper' is for the recipe's file to set. Type recipe_name=NAME."),
        ("schedule.T_max=null", "schedule.T_max must be a number above 0, got None."),
        ("fail_fast=flase", "fail_fast must be true or false, got 'flase'."),
        (
            "model=resnet data=cifar10 model.size=plain20 model.depth=32",
            "model.depth=32 contradicts model.size=plain20, whose depth is 20. Leave one of the two out.",
        ),
        (
            "model=gcn data=arxiv mode=full_from_scaffold",
            "trains every weight, and this model freezes convs.*.bias. Type model.freeze=[], and model.keep",
        ),
        ("model=distilbert data=imdb mode=full_from_scaffold", "freezes embeddings, *.ffn, *layer_norm."),
        ("model.widths=[hidden]", "would make mode=small another net under the same name"),
        ("sweeps=table17", "Type `python run.py -m sweeps=table17`"),
        ("sweeps=digits model=mlp data=digits mode=baseline", "sweeps=digits names many runs"),
        (
            "model=mlp data=cifar10",
            "There is no recipe for model=mlp with data=cifar10. Data for model=mlp: digits, gated_mnist, "
            "lorenz, mnist. "
            "Models for data=cifar10: resnet.",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(typed, words, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check(typed(*words.split()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mode=zero backbone_seed=3", "sets every W_seed to 0, so it contradicts backbone_seed=3. Leave out"),
        (
            "mode=zero init.parameters.std=1",
            "sets every W_seed to 0, so it contradicts init.parameters.std=1",
        ),
        (
            "mode=lora backbone_seed=3",
            "keeps the weights that the model has, so it contradicts backbone_seed",
        ),
        ("mode=probe backbone_seed=3", "keeps the weights that the model has, so it contradicts backbone_s"),
        ("mode=probe rank=4", "has no adapter, so it contradicts rank=4. Leave out rank, or type mode=lora"),
        ("mode=lora adapter.train_beta=true", "has no β, so it contradicts adapter.train_beta=true"),
        ("mode=small backbone_seed=3", "is a dense net, so it contradicts backbone_seed=3"),
        ("mode=small init=binary", "is a dense net, so it contradicts init=binary"),
        ("mode=small adapter.dora=true", "is a dense net, so it contradicts adapter.dora=true"),
        ("mode=small adapter.layer_norm=true", "is a dense net, so it contradicts adapter.layer_norm=true"),
        ("mode=head adapter.dora=true", "has no adapter, so it contradicts adapter.dora=true. Leave out"),
        ("mode=head adapter.B_init=kaiming", "has no adapter, so it contradicts adapter.B_init=kaiming"),
        (
            "mode=full_from_scaffold adapter.dropout=0.1",
            "has no adapter, so it contradicts adapter.dropout=0.1",
        ),
        ("mode=baseline remove_scaffold=true", "has no scaffold to remove. Leave out remove_scaffold"),
    ],
)
def test_what_a_mode_would_ignore_is_refused(typed, words, said):
    mode = words.partition(" ")[0]
    with pytest.raises(ValueError, match=re.escape(f"{mode} {said}")):
        check(typed("data=digits", *words.split()))


@pytest.mark.parametrize(
    "words",
    [
        "mode=head rank=0 alpha=5 adapter.layer_norm=true backbone_seed=3",
        "mode=lora adapter.train_beta=false alpha=4",
        "mode=small rank=4 adapter.dora=false",
        "mode=full_from_scaffold init=binary backbone_seed=3",
        "mode=baseline rank=4 init=binary backbone_seed=3 adapter.dora=true",
    ],
)
def test_what_a_mode_heeds_or_has_not_is_no_contradiction(typed, words):
    check(typed("data=digits", *words.split()))


@pytest.mark.parametrize(
    "words",
    [
        "mode=resample_batch resample.scaffolds=3 resample.fresh=false",
        "model=resnet data=cifar10 model.depth=32",
    ],
)
def test_what_a_mode_or_a_size_leaves_open_may_be_typed(typed, words):
    check(typed(*words.split()))


MODEL = """# @package _global_
model:
  size: small
  sizes: {small: {hidden: [32]}}
  net: {_target_: lottalora.models.mlp.MLP, dropout: 0.0}
  keep: [head]
  freeze: []
  bias: trained
"""
RECIPE = """# @package _global_
recipe: {name: demo, version: 1}
data: {batch_size: 32}
optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 1.0e-3}
schedule: {_target_: torch.optim.lr_scheduler.ConstantLR, _partial_: true}
trainer: {epochs: 1}
"""


def with_own_files(command, folder, *, model=MODEL, recipe=RECIPE):
    """What a run says of a model and a recipe that somebody adds."""
    for name, text in (("model/mine", model), ("recipe/mine_digits", recipe)):
        path = folder / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return command("--config-dir", str(folder / "own"), "model=mine", "data=digits", "dry_run=json")


def without(text, key):
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith(f"{key}:")) + "\n"


def test_a_model_and_a_recipe_of_ones_own_are_found(command, tmp_path):
    assert with_own_files(command, tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model": MODEL.partition("\n")[2]}, "conf/model/mine.yaml land below 'model'"),
        ({"recipe": RECIPE.partition("\n")[2]}, "conf/recipe/mine_digits.yaml land below 'recipe'"),
        ({"model": without(MODEL, "bias")}, "conf/model/mine.yaml sets no model.bias. docs/extending.md has"),
        ({"model": without(MODEL, "net")}, "conf/model/mine.yaml sets no model.net."),
        ({"recipe": without(RECIPE, "schedule")}, "conf/recipe/mine_digits.yaml sets no 'schedule'."),
        ({"model": MODEL.replace("hidden", "hiden")}, "MLP.__init__() got an unexpected keyword argument"),
    ],
)
def test_a_file_of_ones_own_that_lacks_a_part_is_named(command, tmp_path, files, said):
    assert said in only_line(with_own_files(command, tmp_path, **files))


def test_settings_of_a_size_that_is_not_chosen_are_named_with_a_warning(typed, caplog):
    check(typed("model.size=small", "model.sizes.small.hidden=[8]", "model.sizes.tiny.hidden=[8]"))
    assert caplog.messages == ["model.sizes.tiny.hidden=[8] has no effect with model.size=small"]


def test_an_empty_lottalora_data_is_no_folder(typed, monkeypatch):
    monkeypatch.setenv("LOTTALORA_DATA", "")
    with pytest.raises(ValueError, match=r"paths\.data must name a folder, got ''.*LOTTALORA_DATA"):
        check(typed("data=mnist"))


def test_one_run_of_a_sweep_may_name_the_sweep_as_its_slurm_job_does(typed):
    check(typed("sweeps=digits", "model=mlp", "data=digits", "mode=baseline", "seed=42"))


def test_a_rank_up_to_the_largest_dimension_is_allowed():
    net = MLP((1, 28, 28), 10, hidden=[128, 64], dropout=0.0)
    check_rank(net, 784)
    with pytest.raises(ValueError, match="rank=785 is beyond every dimension"):
        check_rank(net, 785)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Adamm", "Unknown _target_ 'torch.optim.Adamm': no such name can be imported"),
        (
            "RMSprop",
            "These settings make no optimizer: RMSprop.__init__() got an unexpected keyword argument",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_refused(command, name, said):
    assert said in only_line(
        command("data=digits", "trainer.epochs=1", f"optimizer._target_=torch.optim.{name}")
    )


def test_ctrl_c_while_data_are_read_says_how_to_go_on(tmp_path):
    folder = tmp_path / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES.sums:
        os.mkfifo(folder / name)
    process = commands.start(ROOT / "run.py", "data=mnist", f"paths.data={tmp_path}", cwd=tmp_path)
    with (folder / "train-images-idx3-ubyte").open("wb"):  # returns when the run has opened it to read
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert said == "stopped by Ctrl-C. Repeat the command to go on.\n"
    assert process.returncode == -signal.SIGINT


def test_ctrl_c_while_modules_are_imported_says_how_to_go_on(tmp_path):
    (tmp_path / "hydra.py").write_text("raise KeyboardInterrupt\n")
    begin = "import sys; [sys.modules.pop(name) for name in list(sys.modules) if name.startswith('hydra')]"
    code = f"{begin}; sys.path.insert(0, {str(tmp_path)!r}); exec(open({str(ROOT / 'run.py')!r}).read())"
    ended = commands.run("-c", code.replace("exec(", f"__file__ = {str(ROOT / 'run.py')!r}; exec("))
    assert (ended.returncode, ended.stderr) == (-2, "stopped by Ctrl-C. Repeat the command to go on.\n")


def test_a_package_that_is_not_installed_is_named_with_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "ncps", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        import ncps.torch  # noqa: F401
    said = "The package ncps is missing. Type: pip install 'lottalora[suite]'"
    assert in_one_line(caught.value) == said
    assert uncaught.one_line(caught.value) == f"error: {said}"
    assert uncaught.missing_package(ModuleNotFoundError("ours", name="lottalora.nothing")) is None


def test_run_py_has_its_config_from_the_package(tmp_path):
    shutil.copy(ROOT / "run.py", tmp_path)
    ended = commands.run(tmp_path / "run.py", "data=digits", "dry_run=json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_help_without_a_config_says_so(tmp_path):
    with pytest.raises(SystemExit, match="error: There is no folder .*conf, of which this help is made"):
        manual.show(tmp_path / "conf", typed="python run.py")


def test_episodes_are_refused_at_once_where_there_is_no_network(command, tmp_path):
    words = ("model=decision_transformer", "data=halfcheetah", f"paths.data={tmp_path}", "trainer.epochs=1")
    assert "could not be downloaded (<urlopen error" in only_line(command(*words, HF_HUB_OFFLINE="0"))


def test_a_precision_of_gpus_alone_is_refused_on_a_cpu(command):
    line = only_line(command("data=digits", "trainer.precision=16-mixed", "trainer.accelerator=cpu"))
    assert "trainer.precision=16-mixed needs a GPU. Type trainer.precision=bf16-mixed" in line


def test_a_pattern_without_a_match_is_refused_with_the_modules_named(command):
    line = only_line(command("model.keep=[haed]", "dry_run=true"))
    assert "keep='haed' names no weight of this model" in line
    assert "head" in line


def test_a_results_folder_that_cannot_be_written_is_refused_before_training(command):
    assert "Cannot write /proc/none" in only_line(command("data=digits", "paths.results=/proc/none"))


def test_a_dry_run_for_slurm_where_there_is_none_is_refused_as_a_run_is(command, tmp_path):
    words = ("-m", "data=digits", "hydra/launcher=slurm_cpu", "dry_run=json")
    assert "There is no Slurm" in only_line(command(*words, PATH=str(tmp_path)))


def test_a_results_folder_that_cannot_be_written_stops_a_multirun(command):
    assert "Cannot write to /proc/none" in only_line(
        command("-m", "data=digits", "paths.results=/proc/none", "rank=1,2")
    )


def test_missing_data_without_a_network_are_refused_with_what_to_type(command, tmp_path):
    line = only_line(command(f"paths.data={tmp_path}/nowhere"))
    assert f"MNIST is not at {tmp_path}/nowhere/mnist/MNIST/raw" in line
    assert "looked for train-images-idx3-ubyte" in line
    assert "paths.data=FOLDER" in line
    assert not (tmp_path / "nowhere").exists()


def test_a_truncated_data_file_is_refused_by_name(command, tmp_path):
    folder = tmp_path / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES.sums:
        (folder / name).write_bytes(b"\0" * 100)
    line = only_line(command(f"paths.data={tmp_path}"))
    assert f"{folder}/train-images-idx3-ubyte is damaged: its 100 bytes are not the official file" in line
    assert not list((tmp_path / "results" / "rows").rglob("*.*"))


def test_a_damaged_row_is_refused_by_name(command, tmp_path):
    account = command("data=digits", "dry_run=true").stdout
    digest = re.search(r"^digest +(\w{12})$", account, re.MULTILINE)[1]
    row = tmp_path / "results" / "rows" / "mlp_digits" / "medium" / f"scaffold-{digest}.json"
    row.parent.mkdir(parents=True)
    row.write_text("{")
    assert f"{row.name} is no usable row" in only_line(command("data=digits"))


def test_a_bug_of_ours_keeps_its_traceback(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(ROOT / "src" / "lottalora", broken / "lottalora")
    (broken / "lottalora" / "models" / "mlp.py").write_text("int('a bug')\n")
    finished = subprocess.run(  # cold: the server of commands has imported the unbroken tree
        [sys.executable, ROOT / "run.py", "data=digits", "dry_run=json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(broken)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode != 0
    assert "ValueError: invalid literal for int() with base 10: 'a bug'" in finished.stderr
    assert "Traceback" in finished.stderr
    assert not any(line.startswith("error: ") for line in finished.stderr.splitlines())


def test_a_failing_job_of_a_multirun_is_named_and_the_others_run(command):
    finished = command("-m", "data=digits", "dry_run=json", "rank=1,-1,2")
    assert finished.returncode == 1
    assert len(finished.stdout.splitlines()) == 2
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("error: rank must be a whole number, 0 or more, got -1. (in job ")
    assert "rank=-1" in last
    assert "Traceback" not in finished.stderr


def test_a_sweep_of_runs_on_several_devices_is_refused_with_the_way_to_use_them(command):
    line = only_line(command("-m", "data=digits", "trainer.devices=2", "rank=1,2"))
    assert "trainer.devices=2 with -m: a sweep runs each cell in one process on one device." in line
    assert "type `lottalora run WORDS trainer.devices=2` for one, without -m" in line
    assert "or `python -m lottalora submit WORDS trainer.devices=2` for all." in line


@pytest.mark.parametrize("workers", ["abc", "1.5", "0"])
def test_workers_that_are_no_number_of_runs_are_refused(command, workers):
    said = "hydra.launcher.workers must be a whole number, 1 or more, or null, got "
    run = command("-m", "data=digits", "rank=1,2", f"hydra.launcher.workers={workers}")
    assert run.stderr.splitlines()[-1].startswith(f"error: {said}")
    with pytest.raises(ValueError, match=said):
        plan(["data=digits", "rank=1,2", f"hydra.launcher.workers={workers}"])


def test_processes_that_do_not_fit_the_devices_are_refused_with_what_to_type(command):
    line = only_line(command("data=digits", "trainer.devices=2", RANK="0", WORLD_SIZE="3"))
    assert "3 processes were started for this run, but trainer.devices=2. Type trainer.devices=3" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan table14", "'table14' is no KEY=VALUE. Type sweeps=table14."),
        ("submit sweeps=digits --dry-run --cpus 0", "--cpus must be a whole number, 1 or more, got 0."),
        ("submit sweeps=digits --dry-run --array-limit 0", "--array-limit must be a whole number, 1 or more"),
        (
            "submit sweeps=digits --dry-run --time abc",
            "--time must be minutes, hours:minutes:seconds or days",
        ),
        ("status sweeps=digits --results nowhere", "There is no folder nowhere."),
    ],
)
def test_a_command_that_cannot_do_what_is_asked_says_so(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith(said)


@pytest.mark.parametrize("command", ["plan", "size"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "model=vit_random data=flowers102 data.image_size=33",
            "data.image_size=33 does not divide into patches of 16 pixels. "
            "Type a multiple of 16, such as 32.",
        ),
        ("model=gin data=molhiv", "The package ogb is missing. Type: pip install 'lottalora[suite]'"),
    ],
)
def test_a_net_that_cannot_be_built_to_be_counted_is_named_in_one_line(
    tmp_path, monkeypatch, capsys, command, words, said
):
    monkeypatch.setitem(sys.modules, "ogb.graphproppred.mol_encoder", None)
    assert main([command, *words.split(), "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{said}\n"


@pytest.mark.parametrize("time", ["90", "1:30", "24:00:00", "2-0", "2-12:30", "UNLIMITED", "0"])
def test_a_limit_of_time_in_slurms_form_is_taken(time):
    check_numbers(cpus=1, array_limit=None, time=time)
    check_lead(60, time)


def test_launcher_whose_package_is_missing_names_the_package():
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/submitit_slurm", options=[])
    assert in_one_line(error).endswith("Type: pip install hydra-submitit-launcher")


def test_an_error_from_another_process_is_said_without_its_place():
    assert in_one_line(ValueError("rank must be 1.")) == "rank must be 1."
