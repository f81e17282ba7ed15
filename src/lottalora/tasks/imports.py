"""What has to be done before the first import of Lightning, so that it imports no more than a run needs."""

from lottalora.tasks import dynamo
from lottalora.tasks.metrics import load_torchmetrics


def before_lightning() -> None:
    """Import torchmetrics without its optional packages, and postpone PyTorch's compiler."""
    load_torchmetrics()
    dynamo.postpone()
