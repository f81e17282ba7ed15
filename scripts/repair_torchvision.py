"""Make `import torchvision` work in a virtual environment where its compiled operators cannot be loaded.

torchvision's wheel may be built for a GPU and torch's for the CPU. Then torchvision's extension is skipped,
the operator `torchvision::nms` has no schema, and the import ends with `operator torchvision::nms does not
exist`; torchmetrics, pytorch_lightning and transformers import torchvision and fail with it. Two schemas
are all that is missing.

This script puts two files into the virtual environment's site-packages: a module with an import hook that
defines the two schemas right before torchvision is first executed, and a .pth file that installs the hook
at every start of Python, so that subprocesses are repaired too. Processes that never import torchvision
never import torch for it.

    .venv/bin/python scripts/repair_torchvision.py

It does nothing where the import works, and removes its files where they are no longer needed.
"""

import py_compile
import subprocess
import sys
import sysconfig
from pathlib import Path

MODULE = '''"""Defines the schemas that torchvision misses. Written by scripts/repair_torchvision.py."""

import sys


class SchemasBeforeTorchvision:
    """Finds torchvision as usual, and has its two schemas defined before its code runs."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            define_schemas()
            execute(module)

        spec.loader.exec_module = exec_module
        return spec


def define_schemas():
    if "library" in globals():
        return
    import torch

    global library  # a Library's schemas live as long as the object
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, SchemasBeforeTorchvision)
'''
SYMPTOM = "operator torchvision::nms does not exist"


def import_error() -> str:
    """What a fresh process says when it imports torchvision; empty where that works."""
    check = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    return "" if check.returncode == 0 else check.stderr


def main() -> int:
    if sys.prefix == sys.base_prefix:
        print("This Python is in no virtual environment. Run: .venv/bin/python scripts/repair_torchvision.py")
        return 1
    site_packages = Path(sysconfig.get_path("purelib"))
    module = site_packages / "_torchvision_schemas.py"
    hook = site_packages / "_torchvision_schemas.pth"
    hook.unlink(missing_ok=True)
    module.unlink(missing_ok=True)

    error = import_error()
    if not error:
        return 0
    if SYMPTOM not in error:
        print(f"torchvision cannot be imported, and not for the reason that this script repairs:\n{error}")
        return 1

    module.write_text(MODULE, encoding="utf-8")
    py_compile.compile(
        str(module), doraise=True
    )  # else compiled at every start where Python may write no bytecode
    hook.write_text("import _torchvision_schemas\n", encoding="utf-8")
    error = import_error()
    if error:
        print(f"torchvision cannot be imported even with its schemas defined:\n{error}")
        return 1
    print("torchvision has no compiled operators here: its two missing schemas are now defined on import.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
