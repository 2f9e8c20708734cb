"""finetune: how hyperparameters affect the fine-tuning of your model, which choice is best, and how sure that is."""

import importlib
import os
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# name -> where it is; imported when first asked for, since `--help` needs no JAX.
_FOUND_IN = {
    "Config": "finetune.config",
    "Objective": "finetune.member.objective",
    "Results": "finetune.study.results",
    "Task": "finetune.member.task",
    "from_functions": "finetune.models.adapters.functions",
    "from_linen": "finetune.models.adapters.linen",
    "from_nnx": "finetune.models.adapters.nnx",
    "run": "finetune.study.run",
    "to_linen": "finetune.models.trained",
    "to_nnx": "finetune.models.trained",
}
__all__ = sorted(_FOUND_IN)

try:
    Path.home()
except RuntimeError:  # an account without an entry, as in a container: libraries ask for it when they are imported
    os.environ["HOME"] = os.sep


def __getattr__(name: str) -> Any:
    """Returns a public name of the package."""
    if name not in _FOUND_IN:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(importlib.import_module(_FOUND_IN[name]), name)
