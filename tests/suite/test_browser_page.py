"""The page that rebuilds a network in a browser computes what Python computes."""

import base64
import json
import re
import resource

import pytest
import torch
from sklearn.datasets import load_digits

from lottalora.artifacts.runs import register_models
from lottalora.cli.main import main
from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import load
from lottalora.scaffold import read
from lottalora.scaffold import save
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.artifact.container import from_bytes
from lottalora.scaffold.artifact.container import to_bytes
from tests.report.browser import Browser
from tests.report.browser import find_chromium

needs_browser = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
MNIST = {"in_shape": [1, 28, 28], "out_dim": 10, "hidden": [512, 256, 128, 64], "dropout": 0.1}
SMALL = MNIST | {"in_shape": [1, 8, 8], "hidden": [32, 16]}


def digits(count=100):
    """Test digits of the 8×8 set, normalised as in training."""
    pixels = torch.tensor(load_digits().images[:count], dtype=torch.float32)
    return ((pixels - 4.884) / 6.017)[:, None]


def saved(path, arguments=MNIST, data="mnist", keep=("head",), family="normal", stored=None, **options):
    torch.manual_seed(0)
    net = MLP(**arguments)
    wrap(net, Scaffold(rank=8, seed=2**64 - 1, family=family, **options), keep=keep)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    register_models()
    probe = [torch.rand(2, *arguments["in_shape"])]
    about = {"architecture": ("mlp", arguments), "provenance": {"data": data}, "probe": probe}
    save(net, path, **about, metrics={"test accuracy": 0.9}, **(stored or {}))
    return net.eval()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A net of MNIST's size, and its page in a browser."""
    folder = tmp_path_factory.mktemp("page")
    net = saved(folder / "net.safetensors")
    assert main(["page", str(folder / "net.safetensors")]) == 0
    browser = Browser(folder / "profile", width=390, height=844)  # a phone
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True
    )
    browser.open(folder / "net.html")
    browser.run("lottalora.then(() => 1)")
    yield net, folder / "net.html", browser
    browser.close()


def test_page_is_small_and_needs_nothing_else(tmp_path):
    saved(tmp_path / "net.safetensors")
    assert main(["page", str(tmp_path / "net.safetensors")]) == 0
    text = (tmp_path / "net.html").read_text()
    assert len(text) <= 250_000
    assert not re.search(r"""(src|href)=|url\(|https?://|import\(|fetch\(""", text)


@pytest.mark.parametrize("folder", [".", ".."])
def test_page_of_a_folder_is_refused_as_no_artifact(folder, capsys):
    assert main(["page", folder]) == 1
    assert capsys.readouterr().err == f"{folder} is no file. Name a .safetensors file that lottalora wrote.\n"


@pytest.mark.parametrize("zstandard", [False, True])
def test_page_of_mnists_net_in_int8_is_smaller_and_its_seal_is_of_what_it_holds(tmp_path, zstandard):
    path = tmp_path / "net.safetensors"
    saved(path, stored={"precision": "int8", "zstandard": zstandard})
    assert main(["page", str(path)]) == 0
    text = (tmp_path / "net.html").read_text()
    assert len(text) <= 100_000
    held = base64.b64decode(re.search(r'id="artifact">([^<]*)<', text)[1])
    sealed = from_bytes(bytearray(held))  # checks the seal
    state = read(path).state
    codes = [name for name, tensor in sealed.tensors.items() if tensor.dtype == torch.int8]
    assert len(codes) == 9 and "zstandard" not in sealed.tensors
    for name in codes:
        scales = sealed.tensors[f"scale/{name}"].float().repeat_interleave(32)[: state[name].numel()]
        assert torch.equal(state[name].flatten(), scales * sealed.tensors[name].flatten())
    assert (held == path.read_bytes()) is not zstandard


@needs_browser
@pytest.mark.browser
def test_browser_draws_the_same_bits(opened):
    net, page, browser = opened
    assert browser.run("lottalora.then((l) => l.good)")
    hashes = browser.run("lottalora.then((l) => l.hashes)")
    from lottalora.scaffold.whole_model.backbone import scaffold_layers

    assert hashes == {name: layer.fingerprint() for name, layer in scaffold_layers(net).items()}
    assert len(hashes) == 4
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]


@needs_browser
@pytest.mark.browser
def test_browser_computes_the_logits_of_a_hundred_digits(opened):
    net, _, browser = opened
    x = torch.nn.functional.interpolate(digits(), size=28, mode="bilinear")
    rounded = [[round(value, 6) for value in each.flatten().tolist()] for each in x]
    given = torch.tensor(rounded).view_as(x)
    with torch.no_grad():
        expected = net(given)
        with without_scaffold(net):
            bare = net(given)
    found = browser.run(f"lottalora.then((l) => {json.dumps(rounded)}.map(l.logits))")
    without = browser.run(f"lottalora.then((l) => {json.dumps(rounded[:9])}.map(l.without))")
    assert (torch.tensor(found) - expected).abs().max() < 1e-4
    assert (torch.tensor(without) - bare[:9]).abs().max() < 1e-4


@needs_browser
@pytest.mark.browser
def test_own_sha256_is_that_of_the_browser(opened):
    code = """lottalora.then(async (l) => {
      const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
      const sizes = [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000];
      const all = sizes.map((n) => Uint8Array.from({ length: n }, (_, i) => (i * 7 + n) & 255));
      return (await Promise.all(all.map((b) => l.sha256(b)))).every((h, i) => h === hex(l.ownSha256(all[i])));
    })"""
    assert opened[2].run(code) is True


@needs_browser
@pytest.mark.browser
def test_page_fits_a_phone_and_answers_to_pointer_and_keys(opened):
    _, _, browser = opened
    assert browser.run("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    answers = "Array.from(document.querySelectorAll('output'), (o) => o.textContent)"
    assert browser.run(answers) == ["", "", ""]
    browser.run("document.getElementById('pad').focus()")
    for key in (" ", *["ArrowDown"] * 9, " "):
        browser.run(
            f"document.getElementById('pad').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))"
        )
    by_keys = browser.run(answers)
    assert all(text.isdigit() for text in by_keys) and len(by_keys) == 3
    browser.run("document.getElementById('clear').click()")
    assert browser.run(answers) == ["", "", ""]
    left, top = browser.run(
        "(({left, top}) => [left, top])(document.getElementById('pad').getBoundingClientRect())"
    )
    for kind, y in (("mousePressed", 60), ("mouseMoved", 120), ("mouseMoved", 220), ("mouseReleased", 220)):
        browser.call(
            "Input.dispatchMouseEvent", type=kind, x=left + 140, y=top + y, button="left", clickCount=1
        )
    assert all(text.isdigit() for text in browser.run(answers))
    centre = browser.run(
        "lottalora.then((l) => { const p = l.drawnPixels(); const m = p.reduce((a, b) => a + b, 0);"
        "return [p.reduce((s, v, i) => s + v * (i % 28), 0) / m, p.filter((v) => v > 0.5).length]; })"
    )
    assert abs(centre[0] - 13.5) < 1 and centre[1] >= 20  # a stroke as high as MNIST's digits
    browser.run("document.getElementById('example').click()")
    assert all(text.isdigit() for text in browser.run(answers))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "text"}, "A page runs an mlp trained on mnist or digits, and this artifact is mlp on text"),
        ({"family": "orthogonal"}, "family orthogonal has other bits on other machines"),
        ({"dora": True}, "it has the option dora"),
        ({"keep": ["head", "body.4"]}, "cannot run matrix 'body.4.weight': it is kept"),
    ],
)
def test_net_that_a_page_cannot_run_is_refused(tmp_path, capsys, options, words):
    saved(tmp_path / "net.safetensors", SMALL, **{"data": "digits", **options})
    assert main(["page", str(tmp_path / "net.safetensors")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "net.html").exists()


def test_page_is_not_overwritten(tmp_path, capsys):
    saved(tmp_path / "net.safetensors", SMALL, "digits")
    assert main(["page", str(tmp_path / "net.safetensors")]) == 0
    assert main(["page", str(tmp_path / "net.safetensors")]) == 1
    assert "exists. Name another file with --out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["page"], ["card"]])
def test_what_does_not_fit_on_the_disk_leaves_nothing(tmp_path, capsys, words):
    saved(tmp_path / "net.safetensors", SMALL, "digits")
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        assert main([*words, str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "out: File too large. Make room, or set --out FILE to another disk" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["net.safetensors"]


def test_text_of_a_file_can_neither_command_the_terminal_nor_add_lines(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    saved(path, SMALL, "digits")
    sealed = from_bytes(bytearray(path.read_bytes()))
    hostile = "mit\x1b[2J\nseal          0000 | <b>"
    header = json.loads(sealed.header) | {"licence": hostile}
    header["provenance"][hostile] = hostile
    header["matrices"][0]["name"] += hostile
    path.write_bytes(to_bytes(sealed.tensors, json.dumps(header)))
    for command in ("inspect", "card"):
        assert main([command, str(path)]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said and "\nseal          0000" not in said
        assert r"mit\x1b[2J\nseal" in said
    assert r"0000 \| &lt;b>" in said


# The browser shows another page from here on.


def reopen(browser, page):
    browser.events.clear()
    browser.open(page)


@needs_browser
@pytest.mark.browser
def test_damaged_page_says_so(opened, tmp_path):
    _, page, browser = opened
    text = page.read_text()
    at = text.index('id="artifact">') + 100_000  # within an adapter
    (tmp_path / "bad.html").write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    reopen(browser, tmp_path / "bad.html")
    assert browser.run("lottalora.then((l) => l.good)") is False
    assert "do not trust" in browser.run("document.getElementById('state').textContent")


@needs_browser
@pytest.mark.browser
def test_page_whose_answers_are_not_the_stored_ones_says_so(opened, tmp_path):
    browser, path = opened[2], tmp_path / "net.safetensors"
    saved(path, SMALL, "digits")
    sealed = from_bytes(bytearray(path.read_bytes()))
    sealed.tensors["probe/output"][1, 9] += 0.01
    path.write_bytes(to_bytes(sealed.tensors, sealed.header))
    assert main(["page", str(path)]) == 0
    reopen(browser, tmp_path / "net.html")
    assert browser.run("lottalora.then((l) => l.good)") is False
    assert "do not trust" in browser.run("document.getElementById('state').textContent")


@needs_browser
@pytest.mark.browser
@pytest.mark.parametrize("family", ["kaiming_uniform", "binary", "sparse_normal"])
def test_net_of_8_by_8_digits_with_an_adapted_head_runs(opened, tmp_path, family):
    browser = opened[2]
    saved(tmp_path / "net.safetensors", SMALL, "digits", keep=(), family=family)
    assert main(["page", str(tmp_path / "net.safetensors"), "--out", str(tmp_path / "a.html")]) == 0
    reopen(browser, tmp_path / "a.html")
    assert browser.run("lottalora.then((l) => l.good)") is True
    x = [[round(value, 6) for value in each.flatten().tolist()] for each in digits(9)]
    found = torch.tensor(browser.run(f"lottalora.then((l) => {json.dumps(x)}.map(l.logits))"))
    with torch.no_grad():
        expected = load(tmp_path / "net.safetensors")(torch.tensor(x).view(9, 1, 8, 8))
    assert (found - expected).abs().max() < 1e-4
    assert browser.complaints() == []


@needs_browser
@pytest.mark.browser
@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "int4"])
def test_page_of_a_compressed_net_computes_what_python_loads(opened, tmp_path, precision):
    browser = opened[2]
    stored = {"precision": precision, "zstandard": precision in ("fp16", "int8")}
    saved(tmp_path / "net.safetensors", SMALL, "digits", stored=stored)
    assert main(["page", str(tmp_path / "net.safetensors")]) == 0
    reopen(browser, tmp_path / "net.html")
    assert browser.run("lottalora.then((l) => l.good)") is True
    about = browser.run("document.getElementById('about').textContent")
    assert ("shipped as a Zstandard frame" in about) is stored["zstandard"]
    x = [[round(value, 6) for value in each.flatten().tolist()] for each in digits()]
    found = torch.tensor(browser.run(f"lottalora.then((l) => {json.dumps(x)}.map(l.logits))"))
    with torch.no_grad():
        expected = load(tmp_path / "net.safetensors")(torch.tensor(x).view(-1, 1, 8, 8))
    assert (found - expected).abs().max() < 1e-4
    assert browser.complaints() == []
