"""Import torchmetrics without the optional packages that none of our metrics uses."""

import sys

UNUSED = ("matplotlib", "onnxruntime", "PIL", "scipy", "torchvision", "transformers")


def load_torchmetrics() -> None:
    """Import torchmetrics as if the packages in UNUSED were not installed.

    On import, torchmetrics loads every optional package that it finds, for its metrics of images, text and
    sound and for its plots, and Lightning imports torchmetrics: 4 of the 7 seconds that Lightning takes.
    So call this before the first import of Lightning; afterwards it does nothing. In this process those
    metrics then report their package as missing: to score by one of them, take the package out of UNUSED.
    """
    if "torchmetrics" in sys.modules:
        return
    from lightning_utilities.core import imports
    from packaging.requirements import Requirement

    cache = imports.RequirementCache
    is_met, is_available = cache.__bool__, imports.package_available

    def is_met_and_used(asked: imports.RequirementCache) -> bool:
        if asked.requirement and Requirement(asked.requirement).name in UNUSED:
            asked.available = False
            asked.message = f"{asked.requirement} is left out by {__name__}.UNUSED"
        return is_met(asked)

    cache.__bool__ = is_met_and_used
    imports.package_available = lambda name: name not in UNUSED and is_available(name)
    try:
        import torchmetrics  # noqa: F401
    finally:
        cache.__bool__, imports.package_available = is_met, is_available
