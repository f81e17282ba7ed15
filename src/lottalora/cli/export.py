"""Write an artifact as ordinary files that other libraries load, and compare their outputs with its own."""

import argparse
from pathlib import Path

HELP = "write an artifact as a state dict, or for transformers, ONNX or PEFT"
TARGETS = ("state_dict", "transformers", "onnx", "peft")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", type=Path, metavar="MODEL.safetensors", help="from artifact=true or save")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file or folder to write")
    parser.add_argument(
        "--to",
        choices=TARGETS,
        required=True,
        help="merged weights as a state dict; a folder for from_pretrained (GPT, ViT, DistilBERT); an ONNX "
        "graph (MLP, ResNet, ViT, GPT); a LoRA folder over its dense base",
    )


def run(asked: argparse.Namespace) -> int:
    """Write the export, unless it exists; say how far its outputs are from the artifact's."""
    from lottalora.artifacts.export.write import export

    difference = export(asked.path, asked.to, asked.out)
    compared = "no inputs to compare on" if difference is None else f"outputs within {difference:.1e}"
    print(f"{asked.out}: {asked.to}, {compared}{'' if difference is None else ' of the largest'}.")
    return 0
