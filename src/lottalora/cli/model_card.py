"""The model card of an artifact, by huggingface_hub's classes."""

from lottalora.messages import printable
from lottalora.scaffold import Artifact

BODY = """# {name}

A [LottaLoRA](https://arxiv.org/abs/2604.08749) model: frozen random weights that are drawn from a seed, and
trained low-rank adapters. The file holds {held:,} numbers; {drawn:,} more are drawn when it is loaded.

```python
from lottalora.artifacts.runs import register_models
from lottalora.scaffold import load

register_models()
model = load("{name}")
```

| | |
|---|---|
| architecture | `{architecture}` |
| family | {family} |
| rank | {rank} |
{lines}| seal (SHA-256) | `{seal}` |
"""


def card_of(artifact: Artifact, name: str) -> str:
    """The card as Markdown with YAML metadata.

    Args:
        artifact: the artifact.
        name: of its file.
    """
    from huggingface_hub import EvalResult
    from huggingface_hub import ModelCard
    from huggingface_hub import ModelCardData

    header, about = artifact.header, artifact.header.provenance
    results = [
        EvalResult(
            task_type="other",
            dataset_type=about.get("data", "unknown"),
            dataset_name=about.get("data", "unknown"),
            dataset_split=metric.partition(" ")[0],
            metric_type=metric.partition(" ")[2] or metric,
            metric_value=value,
        )
        for metric, value in header.metrics.items()
    ]
    data = ModelCardData(
        license=header.licence or None,
        library_name="lottalora",
        tags=["lottalora", "lora", "random-weights"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    lines = [f"| {cell(key)} | {cell(value)} |\n" for key, value in [*header.metrics.items(), *about.items()]]
    body = BODY.format(
        name=name,
        held=sum(tensor.numel() for tensor in artifact.state.values()),
        drawn=sum(m.shape[0] * m.shape[1] for m in header.matrices if not m.stored),
        architecture=header.architecture["name"] if header.architecture else "none",
        family=", ".join(sorted({matrix.family for matrix in header.matrices})),
        rank=", ".join(str(r) for r in sorted({matrix.rank for matrix in header.matrices})),
        lines="".join(lines),
        seal=artifact.sealed.seal,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def cell(value: object) -> str:
    """A text or number of the file in one cell of a Markdown table."""
    return printable(str(value)).replace("|", "\\|").replace("<", "&lt;")
