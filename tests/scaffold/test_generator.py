"""The generator: known answers, and the same bits in every circumstance."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold.drawing import prng
from lottalora.scaffold.families.quantiles import quantiles

EXACT = sorted(name for name, family in FAMILIES.items() if family.exact)


def sha256(W):
    return hashlib.sha256(W.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, 0xFFFFFFFFFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, words):
    """Random123's kat_vectors for philox4x32, 10 rounds."""
    state = [np.array([c], np.uint64) for c in counter]
    assert prng._rounds(state, key)[0].tolist() == words


def test_philox_counts_blocks_in_64_bits():
    across = prng.philox(7, 2**32 - 1, 2)  # the counter's low word overflows between the two
    state = [np.array([c], np.uint64) for c in (0, 1, 0, 0)]
    assert across[1].tolist() == prng._rounds(state, 7)[0].tolist()


def test_halves_start_anywhere_in_the_stream():
    whole = np.concatenate(list(prng.halves(3, 0, 200_000)))
    part = np.concatenate(list(prng.halves(3, 65_530, 140_003)))
    assert whole.size == 200_000
    assert np.array_equal(part, whole[65_530:140_003])


# Of draw(Source(42, "blocks.0.fc1", (48, 130), family)). They change only with prng.VERSION, or where the
# change log says that a family is defined anew.
GOLDEN = {
    "beta": "4e3883270f1ba36aa805cfe6bfd68193b39c5d3f5c204e353f766e2c4e071c27",
    "binary": "81c37b619c6eb5ccc54c9c16803a2a3721256976a9efbd7f9b7829abf14402c5",
    "cauchy": "191dcafb7e8226a9715f0cfe0d16197e5c44e849bc9b409c5f2d83be64b57ac8",
    "exponential": "a272700f91b7258f3d3cb0626fb56bfdcfbcc7e3b8956d1892abb3aa1f49360e",
    "gaussian_mixture": "580e8c59a6466f63b711a17ee61c066951670e5bc9642621d68e189fea531cb1",
    "kaiming_normal": "29c3e3e8226db46efb7707e3b0e9e9cb876c26f40e66174b6d13e928eb390cb3",
    "kaiming_uniform": "a0123cab7ccbc05f1193608a4928ee043c7e22a522a08690d33ec8f7cfd52270",
    "laplace": "b0353efc3b0b5794b59cb6bf39865197eacd84cd618886d2d740c91bbb543d47",
    "normal": "b04bcd705798ed2cc20a86a543e7c58ebf004ea0e63e0e790eb73dfa1aace55b",
    "quantized_16bit": "64dd0ce10fbc253b10bb0568d0b9aad7dadf84fb0566299b75572c9a863adcbd",
    "quantized_2bit": "59ead63b5b247e3fbf647be445fb1eb37415e3491fbc9190fbe2b3cec4550dab",
    "quantized_4bit": "081f0315173680973dd228a06d03c049df140cf16f48c8aeb3f5289884178b2b",
    "quantized_8bit": "0a7ac970ed0618fdc53e7301fe5c662a080153237f97df197b3bb0392b3364ef",
    "sparse_erdos_renyi": "47e705d90d95f44baed722956d2d50aba22c2caa0c2bb37c323da4b9163c4741",
    "sparse_normal": "b60f8d11ccc0532658860a4c3eea481f57ac850e391ee30d4a14b61619a0872d",
    "student_t": "e3a430ec58d9e23c668e93665e2769b664ee26611b947744bc4620d9fd8d865a",
    "ternary": "0fdbbb447ef0f298d14aecb4ac50ee2aea807048886e86d7062521062ec82b64",
    "truncated_normal": "93a69c56485396444dc89580595a52f3813ed50c92919ab55b5f26488a7eda23",
    "uniform": "06cfcc1afef23823ffe1c70727b831c24448307ef47574e251163e5e02031dc4",
    "xavier_normal": "6baa0c997d8154c3980ec5fe06cd4de5bbed767ce1f230a227f8b7946c7ea24a",
    "xavier_uniform": "f5f0311d852964bdaaa28194a2c5b3b46c795771949b732f88cea43ec2e5fa22",
    "zeros": "b61bd4e4f5fb438f73d16cf6f3b6917f4c65afd4956dd2237b5b7f61ffc5ca43",
}

FIRST_READING = {  # the same draw, from the code that read Table 13 for the first time
    "beta": "4308727d321e843a46f8836ba294cddd3cd1cfef2ca04ff9484a1b0fa92d5e34",
    "cauchy": "5593698fbd60f44daf352ffd148b1bb1f4b17965a0f36c5187d10f4d7711cda6",
    "exponential": "27b890667ea66380f2924b5143d39a548839333e400fa2ec69e1d97b966070f7",
    "gaussian_mixture": "8dd137823ffe380be50348d1227860c3df3c89c48fea644c1c4db99aa212f2e9",
    "kaiming_normal": "a2b045d45819855be610385438d967e29cfbf83bc07a8a7a3e17ff71d18a1ef3",
    "laplace": "dc2a64d84216018e8c0ef900d1057ff29c69bf319813db8bf20760b838114b45",
    "sparse_erdos_renyi": "629c3c92dd7b5910fbf2f72e5b219d574fcb64fa3281e70c8f4e81ed50aa7ddf",
    "uniform": "62e458a16b7f8e528dfc27ed8c287f77ee2eb0dd365545662872f194ac1667e7",
}
PARAMETERS_OF_IT = {"kaiming_normal": {"a": 0.0}, "sparse_erdos_renyi": {"density": 0.2}}


@pytest.mark.parametrize("name", EXACT)
def test_family_draws_the_bits_that_were_released(name):
    assert sha256(draw(Source(42, "blocks.0.fc1", (48, 130), name))) == GOLDEN[name]


@pytest.mark.parametrize("name", sorted(FIRST_READING))
def test_parameters_of_the_first_reading_draw_its_bits(name):
    parameters = PARAMETERS_OF_IT.get(name, {"scaling": "literal"})
    assert sha256(draw(Source(42, "blocks.0.fc1", (48, 130), name, parameters))) == FIRST_READING[name]


def test_there_is_a_golden_hash_of_each_exact_family():
    assert sorted(GOLDEN) == EXACT


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_block_of_rows_equals_the_rows_of_the_whole(name):
    source = Source(1, "layer", (57, 33), name)
    W = draw(source)
    for rows in ((0, 57), (13, 29), (56, 57), (5, 5)):
        torch.testing.assert_close(draw(source, rows=rows), W[slice(*rows)], rtol=0, atol=0)


def test_rows_outside_the_matrix_are_refused():
    with pytest.raises(ValueError, match="Rows 3 to 9 are not within the 8 rows of 'fc'"):
        draw(Source(1, "fc", (8, 4)), rows=(3, 9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 0)}, r"shape must be \(out, in\), two whole numbers above 0, got \(3, 0\)"),
        ({"shape": (3,)}, "shape must be"),
        ({"shape": (3, 4), "stack": 2}, r"stack must divide the rows of \(3, 4\), got 2"),
    ],
)
def test_source_of_no_matrix_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Source(0, "layer", **options)


def test_whole_numbers_are_not_drawn():
    with pytest.raises(ValueError, match=r"must be a floating-point dtype, .*got torch.int8"):
        draw(Source(0, "layer", (3, 4)), dtype=torch.int8)


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"name": "b"}, {"shape": (64, 32)}, {"family": "cauchy"}, {"redraw": 1}]
)
def test_streams_that_differ_in_one_part_are_independent(change):
    base = {"seed": 1, "name": "a", "shape": (32, 64)}
    a, b = draw(Source(**base)).flatten(), draw(Source(**{**base, **change})).flatten()
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.1  # 4.5 standard errors of 2,048 pairs


def test_layer_does_not_depend_on_what_was_drawn_before_it():
    alone = draw(Source(5, "second", (16, 16)))
    draw(Source(5, "first", (100, 3)))
    assert torch.equal(draw(Source(5, "second", (16, 16))), alone)


def test_half_precision_is_the_float32_draw_rounded():
    source = Source(5, "fc", (16, 16))
    assert torch.equal(draw(source, dtype=torch.bfloat16), draw(source).bfloat16())


def test_parameters_map_the_same_words():
    """Arms that differ in scale only are paired."""
    one, ten = (draw(Source(5, "fc", (16, 16), "normal", {"std": s, "fan_in": False})) for s in (1.0, 10.0))
    torch.testing.assert_close(ten, 10 * one)


CHILD = """
import hashlib, sys, torch
from lottalora.scaffold import FAMILIES, Source, draw
for threads in sys.argv[1:]:
    torch.set_num_threads(int(threads))
    total = hashlib.sha256()
    for name in sorted(FAMILIES):
        if FAMILIES[name].exact:
            for dtype in (torch.float32, torch.bfloat16):
                W = draw(Source(42, "fc", (301, 701), name), dtype=dtype)
                total.update(W.view(torch.uint8).numpy().tobytes())
    print(torch.get_num_threads(), total.hexdigest())
"""
CAPABILITIES = ("default", "avx2", "avx512")
THREADS = ("1", "2", "4")


def drawn_with(capability, *threads, without=""):
    """The SHA-256 of every exact family, drawn in one process with each of these numbers of threads."""
    settings = {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": threads[-1]}
    settings |= {"PYTHONHASHSEED": str(len(capability))}  # another for each
    settings |= {"NPY_DISABLE_CPU_FEATURES": without} if without else {}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, *threads]
    ran = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    drawn = [line.split() for line in ran.stdout.splitlines()]
    assert [line[0] for line in drawn] == list(threads)
    return {digest for _, digest in drawn}


def test_bits_do_not_depend_on_threads_or_cpu_features():
    found = drawn_with("avx512", "1"), drawn_with("default", "4", without="AVX2 FMA3")
    assert found[0] == found[1]
    assert [len(digest) for digest in found[0]] == [64]


@pytest.mark.slow
def test_bits_are_the_same_for_every_number_of_threads_and_cpu_capability():
    assert len(set().union(*(drawn_with(capability, *THREADS) for capability in CAPABILITIES))) == 1


def test_normal_table_has_the_moments_of_the_normal():
    T = quantiles("normal").astype(np.float64)
    assert T.std() == pytest.approx(0.99999, abs=1e-5)
    assert (T**4).mean() / T.var() ** 2 == pytest.approx(2.9992, abs=1e-4)
    assert abs(T).max() == pytest.approx(4.3248, abs=1e-3)


def test_another_table_file_is_refused(tmp_path, monkeypatch):
    from lottalora.scaffold.families import quantiles as module

    other = tmp_path / "quantiles.safetensors"
    other.write_bytes(module.PATH.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(module, "PATH", other)
    module._file.cache_clear()
    with pytest.raises(RuntimeError, match="has SHA-256 .* reinstall lottalora"):
        module.quantiles.__wrapped__("normal")
    module._file.cache_clear()


def test_threads_draw_the_bits_that_one_thread_draws(monkeypatch):
    source = Source(7, "layer", (301, 97))
    one = draw(source), draw(source, (3, 250))
    monkeypatch.setattr("lottalora.scaffold.drawing.draw.MANY", 1)
    monkeypatch.setattr("lottalora.scaffold.drawing.draw._threads", lambda: 3)
    assert torch.equal(draw(source), one[0]) and torch.equal(draw(source, (3, 250)), one[1])
