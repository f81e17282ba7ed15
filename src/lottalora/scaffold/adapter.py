"""The settings of one layer's adapter (`Adapter`) and of a whole model's scaffold (`Scaffold`)."""

import math
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from fnmatch import fnmatchcase

import torch

from lottalora.scaffold.drawing.seeds import check_seed
from lottalora.scaffold.families.family import Parameter
from lottalora.scaffold.families.family import distribution_of

LEARNED = "learned"
DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    r"""The settings of the adapter of one frozen weight.

    .. math:: h = \beta W_{seed}\, x + s\, B A x + b, \qquad s = \alpha / r

    Args:
        rank: r ≥ 0. r = 0 leaves out A and B, which is the reservoir control. r > min(out, in) is allowed but
            redundant.
        alpha: α > 0, or None for α = r, a scale of 1.
        rslora: scale by α / √r instead of α / r. Kalajdzievski 2023, https://arxiv.org/abs/2312.03732
        A_init: "kaiming" (uniform, bound 1/√in, as in LoRA), "normal" (standard deviation 1/√in) or "zeros".
        B_init: "zeros", so that the first forward pass is W_seed x, or "kaiming" (uniform).
        dropout: the probability of zeroing an input of the adapter path during training, 0 ≤ p < 1.
        dora: renormalise each output by a trained magnitude m: h = m / ‖W‖ · W x. ‖W‖ is the norm of each row
            of W = β W_seed + s B A, and no gradient flows through it. Liu et al. 2024,
            https://arxiv.org/abs/2402.09353
        residual: add x to h; the input and the output must have the same shape.
        layer_norm: normalise h over its features (in a convolution over channels and positions), with trained
            gain and shift.
        train_beta: whether β is trained; if not, β = 1.
        adapter_dtype: the dtype of A, B, β and m, for example "bfloat16", whatever the model is cast to; None
            for float32, or the model's dtype if that is wider. In bfloat16 a step of 1e-3 does not change a β
            of 1.

    Raises:
        ValueError: a value outside its stated range.
    """

    rank: int = 8
    alpha: float | None = None
    rslora: bool = False
    A_init: str = "kaiming"
    B_init: str = "zeros"
    dropout: float = 0.0
    dora: bool = False
    residual: bool = False
    layer_norm: bool = False
    train_beta: bool = True
    adapter_dtype: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or isinstance(self.rank, bool):
            raise ValueError(f"rank must be a whole number, 0 or more, got {self.rank!r}.")
        if self.rank < 0:
            raise ValueError(f"rank must be 0 or more, got {self.rank}.")
        self._check_types()
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 0, or None for alpha = rank, got {self.alpha!r}.")
        if self.A_init not in ("kaiming", "normal", "zeros"):
            raise ValueError(f"A_init must be 'kaiming', 'normal' or 'zeros', got {self.A_init!r}.")
        if self.B_init not in ("zeros", "kaiming"):
            raise ValueError(f"B_init must be 'zeros' or 'kaiming', got {self.B_init!r}.")
        if self.A_init == self.B_init == "zeros":
            raise ValueError(
                "A and B both at 0 never get a gradient: use B_init='kaiming' with A_init='zeros'."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}.")
        if self.adapter_dtype not in (None, *DTYPES):
            raise ValueError(
                f"adapter_dtype must be None or one of {', '.join(DTYPES)}, got {self.adapter_dtype!r}."
            )

    def _check_types(self) -> None:
        for name, value in (("alpha", self.alpha), ("dropout", self.dropout)):
            no_number = isinstance(value, bool) or not isinstance(value, int | float)
            if no_number and not (name == "alpha" and value is None):
                raise ValueError(f"{name} must be a number, int or float, got {value!r}.")
        for name in ("rslora", "dora", "residual", "layer_norm", "train_beta"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")

    def dtype_beside(self, model: torch.dtype) -> torch.dtype:
        """The dtype of A, B, β and m in a model of the given dtype."""
        return DTYPES[self.adapter_dtype] if self.adapter_dtype else torch.promote_types(model, torch.float32)

    @property
    def scale(self) -> float:
        """s, the factor of B A x: α / r, or α / √r for rsLoRA; 0 for r = 0."""
        if self.rank == 0:
            return 0.0
        alpha = self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True, kw_only=True)
class Scaffold(Adapter):
    """The settings of a whole model: its adapters, and the distribution and seed of its frozen weights.

    Args:
        family: a key of FAMILIES, the distribution of W_seed. Or "learned": W_seed is the weight that the
            model has; with train_beta=False this is ordinary LoRA. Learned weights are not in `state_dict()`
            and cannot be drawn again, so build the model with them before loading a state. Hu et al. 2021,
            https://arxiv.org/abs/2106.09685
        parameters: the family's parameters that differ from its defaults, for example {"std": 0.1,
            "fan_in": False}.
        seed: the backbone seed, 0 … 2⁶⁴ − 1. It determines W_seed only; A is drawn from PyTorch's global
            generator.
        bias: whether the biases of adapted layers are "trained", or "frozen" at their present values. The
            paper's benchmarks differ in this.
        ranks: name or shell pattern → rank of the matrices that it matches, instead of `rank`; a name wins
            over a pattern, and the first of several patterns counts. A key that is the name of a matrix is
            no pattern. `share_ranks` makes one.

    Raises:
        ValueError: a value outside its stated range, or an unknown family or parameter; the message lists the
            known ones.
    """

    family: str = "normal"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    seed: int = 0
    bias: str = "trained"
    ranks: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Adapter.__post_init__(self)
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"parameters must be a dict, such as {{'std': 0.1}}, got {self.parameters!r}.")
        if self.family == LEARNED:
            if self.parameters:
                raise ValueError(f"Learned weights have no parameter {next(iter(self.parameters))!r}.")
        else:
            distribution_of(self.family, (1, 1), self.parameters)
        check_seed(self.seed)
        if self.bias not in ("trained", "frozen"):
            raise ValueError(f"bias must be 'trained' or 'frozen', got {self.bias!r}.")
        if not isinstance(self.ranks, Mapping):
            raise ValueError(f"ranks must be a dict, such as {{'*.mlp.*': 4}}, got {self.ranks!r}.")
        for pattern, rank in self.ranks.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise ValueError(f"ranks must be whole numbers, 1 or more, got {rank!r} for {pattern!r}.")

    def of(self, names: Sequence[str], known: Collection[str] = ()) -> "Scaffold":
        """The settings of one matrix.

        Args:
            names: of the matrix, which has more than one where it is tied.
            known: the names of all matrices: a key of `ranks` that is one of them is no shell pattern.
        """
        pattern = next((name for name in names if name in self.ranks), None)
        if pattern is None:
            patterns = (each for each in self.ranks if each not in known)
            pattern = next((each for each in patterns if any(fnmatchcase(n, each) for n in names)), None)
        return self if pattern is None else replace(self, rank=self.ranks[pattern])
