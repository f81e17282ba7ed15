"""Whether a model is the one of an artifact, compared on the meta device."""

from torch import nn

from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.reading import Artifact
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.state import state_names
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.matrices import find_matrices
from lottalora.scaffold.wrapping.matrices import projected_biases
from lottalora.scaffold.wrapping.wrap import wrap


def compare(twin: nn.Module, artifact: Artifact) -> None:
    """Refuse a model, on the meta device, that is not the one of the artifact; it is wrapped afterwards."""
    header = artifact.header
    ours = {matrix.name for matrix in find_matrices(twin)}
    vectors = _frozen_vectors(artifact)
    _same_names({*header.adapt, *header.keep, *header.freeze} - vectors, ours, "matrix")
    of_twin = projected_biases(twin) | {name for name, _ in twin.named_parameters(remove_duplicate=False)}
    _refuse_lacking(vectors - of_twin - _own_norms(header), "vector")
    put_on_scaffold(twin, header)
    layers = scaffold_layers(twin)
    for matrix in header.matrices:
        layer = layers.get(matrix.name)
        if layer is None:
            raise ValueError(
                f"The artifact has a scaffold layer {matrix.name!r}, and this model has none there."
            )
        _same_record(matrix, layer)
    _same_names({matrix.name for matrix in header.matrices}, set(layers), "scaffold layer")
    expected = state_names(twin)
    found = artifact.state | {name: artifact.state[source] for name, source in header.tied.items()}
    if len(found) != len(artifact.state) + len(header.tied):
        raise damaged("a tensor is both stored and tied")
    _same_names(set(found), set(expected), "tensor")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"Tensor {name!r} has the shape {tuple(found[name].shape)} in the artifact, and "
                f"{tuple(tensor.shape)} in this model: it is another architecture."
            )
        if tensor.is_floating_point() != found[name].is_floating_point():
            raise ValueError(
                f"Tensor {name!r} is {found[name].dtype} in the artifact, and {tensor.dtype} here."
            )


def _frozen_vectors(artifact: Artifact) -> set[str]:
    """The names in `freeze` that are vectors: their values are stored, those of a frozen matrix are drawn."""
    stored = artifact.state.keys() | artifact.header.tied.keys()
    return stored & set(artifact.header.freeze)


def _own_norms(header: Header) -> set[str]:
    """What `freeze` may name beyond the plain model: gain and shift of the option `layer_norm`.

    Earlier versions let patterns match them. They are trained again, as the option says.
    """
    layers = [matrix.name for matrix in header.matrices if "layer_norm" in matrix.options]
    return {dotted(layer, "norm", each) for layer in layers for each in ("weight", "bias")}


def _same_names(theirs: set[str], ours: set[str], what: str) -> None:
    _refuse_lacking(theirs - ours, what)
    extra = sorted(ours - theirs)
    if extra:
        raise ValueError(
            f"This model has {what} {extra[0]!r}, the artifact has not: it is another architecture."
        )


def _refuse_lacking(names: set[str], what: str) -> None:
    if names:
        raise ValueError(
            f"This model lacks {what} {min(names)!r} of the artifact: it is another architecture."
        )


def _same_record(matrix: MatrixRecord, layer: Frozen) -> None:
    record, adapter = layer.record(), getattr(layer, "adapter", None)
    source = layer.source
    ours = {
        "stream": "" if source is None else source.name,
        "shape": record.shape,
        "stack": 1 if source is None else source.stack,
        "place": "adapt" if isinstance(adapter, Scaffold) else "freeze",
        "family": record.family,
        "parameters": record.parameters,
        "rank": 0 if adapter is None else adapter.rank,
        "scale": record.scale,
        "options": record.options,
    }
    for name, value in ours.items():
        if getattr(matrix, name) != value:
            raise ValueError(
                f"Layer {matrix.name!r} has {name} {getattr(matrix, name)!r} in the artifact, and {value!r} "
                "in this model: it is another architecture."
            )


def put_on_scaffold(model: nn.Module, header: Header) -> None:
    """Wrap a model as the header says, without drawing."""
    own = _own_norms(header) - {name for name, _ in model.named_parameters(remove_duplicate=False)}
    freeze = [name for name in header.freeze if name not in own]
    wrap(model, header.to_scaffold(), drawn=False, keep=header.keep, freeze=freeze, compose=header.compose)
