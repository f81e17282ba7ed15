"""The merged model as an ONNX graph: one file, any number of examples, and of tokens for GPT."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from lottalora.artifacts.export.model import Model
from lottalora.scaffold import merge

AXES = {
    "mlp": {0: "examples"},
    "resnet": {0: "examples"},
    "vit": {0: "examples"},
    "gpt": {0: "texts", 1: "tokens"},
}
LARGEST = 2**31  # bytes of one ONNX file


def write(model: Model, out: Path) -> None:
    """Merge, trace, and write the graph; its input is `input`, its output `output`.

    Raises:
        ValueError: the architecture takes more than one tensor, or is too large.
        ModuleNotFoundError: onnx or onnxscript is missing.
    """
    import onnx  # noqa: F401  named where it is missing, before anything is traced
    import onnxscript  # noqa: F401

    if model.name not in AXES:
        raise ValueError(f"ONNX is for {', '.join(AXES)}, and this artifact is {model.name!r}.")
    merge(model.net)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.net.parameters())
    if size >= LARGEST:
        raise ValueError(f"The weights have {size:,} bytes, and one ONNX file holds {LARGEST:,}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's, of its own parts
        torch.onnx.export(
            model.net,
            tuple(model.inputs),
            out,
            dynamo=True,
            external_data=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=[{axis: torch.export.Dim.DYNAMIC for axis in AXES[model.name]}],
            verbose=False,
        )


def output(model: Model, out: Path) -> Tensor:
    """What onnxruntime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": model.inputs[0].numpy()})
    return torch.from_numpy(found)
