"""finetune: how hyperparameters affect the fine-tuning of your model, which choice is best, and how sure that is.

    import finetune

    config = finetune.Config(trainable="head")
    config.data.name = "reviews.csv"
    results = finetune.run(config, "runs/mine", grid={"learning_rate": [1e-3, 1e-2]}, seeds=3)
    results.answer()  # effects, intervals and a recommendation in ten lines; runs/mine/report.html has the charts
    results.table()  # a pandas DataFrame, one row a trial

run          trains a grid, all trials together, and returns its Results; the same call again continues
plan         what that would take, measured; nothing is trained
read         the Results of an earlier study
analyse      the answer to any table of trials
Config       every setting with its default: `finetune --help` lists them
Results      trials, table(), curves(), answer(), best, params(trial)
Task         a model as pure functions; from_linen, from_nnx, from_functions make one of yours
to_linen, to_nnx  an exported model back as a Flax module
Objective, Metric  what a task of yours minimises, and is judged by
UserError    what is raised for what you can mend: one line
"""

import importlib
import os
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# name -> where it is; imported when first asked for, since `--help` needs no JAX.
_FOUND_IN = {
    "Config": "finetune.config",
    "Metric": "finetune.member.metric",
    "Objective": "finetune.member.objective",
    "Results": "finetune.study.results",
    "Task": "finetune.member.task",
    "UserError": "finetune.errors",
    "analyse": "finetune.study.entrance",
    "from_functions": "finetune.models.adapters.functions",
    "from_linen": "finetune.models.adapters.linen",
    "from_nnx": "finetune.models.adapters.nnx",
    "plan": "finetune.study.entrance",
    "read": "finetune.study.entrance",
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


def __dir__() -> list[str]:
    return [*globals(), *__all__]
