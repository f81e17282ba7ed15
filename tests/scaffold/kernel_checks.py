"""Checks of the Triton kernels: on a GPU where there is one, else in Triton's interpreter.

    TRITON_INTERPRET=1 python -m tests.scaffold.kernel_checks

The interpreter has to be asked for before Triton is imported, so `test_kernels.py` runs this in a process.
"""

import itertools

import torch

from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold.kernels import draw_on
from lottalora.scaffold.kernels import pack
from lottalora.scaffold.kernels import sign_linear
from lottalora.scaffold.kernels import unpack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def bits_are_those_of_the_cpu():
    """For tables, signs and a family with atoms; over several programs; from a row inside a block."""
    for family, shape in (
        ("normal", (37, 61)),
        ("binary", (9, 33)),
        ("ternary", (5, 7)),
        ("uniform", (40, 64)),
    ):
        for seed in (1, 2, 2**64 - 1):  # keys above and below 2⁶³
            source = Source(seed, "net.0", shape, family)
            assert torch.equal(draw_on(source, DEVICE).cpu(), draw(source)), source
            assert torch.equal(draw_on(source, DEVICE, (3, 5)).cpu(), draw(source, (3, 5))), source
    experts = Source(3, "moe", (12, 10), "kaiming_normal", stack=3)
    assert torch.equal(draw_on(experts, DEVICE).cpu(), draw(experts))
    if DEVICE == "cuda":  # the interpreter does not round
        source = Source(5, "half", (130, 70))
        assert torch.equal(
            draw_on(source, DEVICE, dtype=torch.bfloat16).cpu(), draw(source, dtype=torch.bfloat16)
        )


def families_of_whole_matrices_are_refused():
    try:
        draw_on(Source(1, "a", (4, 4), "orthogonal"), DEVICE)
    except ValueError as error:
        assert "'orthogonal' needs the whole matrix" in str(error)
    else:
        raise AssertionError("orthogonal was drawn")


def signs_survive_packing():
    for columns in (1, 31, 32, 33, 70):
        W = draw(Source(7, "signs", (5, columns), "binary")).to(DEVICE)
        words, magnitude = pack(W)
        assert words.shape == (5, -(-columns // 32)) and torch.equal(unpack(words, columns, magnitude), W)
    try:
        pack(torch.tensor([[1.0, 2.0]], device=DEVICE))
    except ValueError as error:
        assert "several magnitudes" in str(error)
    else:
        raise AssertionError("two magnitudes were packed")


def layer_and_gradients_are_those_of_the_equation():
    """Against autograd through β W x + s B A x + b, with shapes that leave ragged tiles."""
    torch.manual_seed(0)
    for beta, rank in itertools.product((None, -0.7, 0.0), (None, 3)):
        agree(beta, rank, rank is None, torch.float32, 1e-5)
    agree(-0.7, 17, True, torch.float32, 1e-5)
    if DEVICE == "cuda":
        agree(-0.7, 8, True, torch.bfloat16, 2e-2)
        agree(None, 8, True, torch.float16, 5e-3)


def agree(beta, rank, biased, dtype, tolerance):
    columns, out = 70, 75
    W = draw(Source(7, "signs", (out, columns), "binary")).to(DEVICE)
    words, magnitude = pack(W)
    parts = {"x": torch.randn(3, 25, columns, device=DEVICE, dtype=dtype)}
    if beta is not None:
        parts["beta"] = torch.tensor(beta, device=DEVICE)
    if rank:
        parts["A"] = torch.randn(rank, columns, device=DEVICE) / columns**0.5
        parts["B"] = torch.randn(out, rank, device=DEVICE)
    if biased:
        parts["bias"] = torch.randn(out, device=DEVICE)
    ours = {name: part.clone().requires_grad_() for name, part in parts.items()}
    true = {name: part.double().requires_grad_() for name, part in parts.items()}
    h = sign_linear(ours["x"], words, magnitude, *map(ours.get, ("beta", "A", "B", "bias")), scale=0.5)
    expected = true["x"] @ W.double().T * true.get("beta", 1)
    if rank:
        expected = expected + 0.5 * true["x"] @ true["A"].T @ true["B"].T
    expected = expected + true.get("bias", 0)
    dh = torch.randn(h.shape, device=DEVICE, dtype=dtype)
    h.backward(dh)
    expected.backward(dh.double())
    pairs = {"h": (h, expected)} | {name: (ours[name].grad, true[name].grad) for name in parts}
    for name, (found, right) in pairs.items():
        error = ((found - right).norm() / (right.norm() or 1)).item()
        zero = beta == 0 and not rank  # then the input reaches nothing
        assert (right.norm() > 0 or zero) and error < tolerance, (name, beta, rank, biased, dtype, error)


def wrong_input_is_refused():
    words, magnitude = pack(torch.ones(4, 40, device=DEVICE))
    for x, said in (
        (torch.ones(2, 70), "2 words a row do not fit 70"),
        (torch.ones(2, 40).double(), "float64"),
    ):
        try:
            sign_linear(x.to(DEVICE), words, magnitude)
        except ValueError as error:
            assert said in str(error)
        else:
            raise AssertionError(said)


CHECKS = (
    bits_are_those_of_the_cpu,
    families_of_whole_matrices_are_refused,
    signs_survive_packing,
    layer_and_gradients_are_those_of_the_equation,
    wrong_input_is_refused,
)

if __name__ == "__main__":
    for check in CHECKS:
        check()
        print(f"{check.__name__}: right on {DEVICE}", flush=True)
