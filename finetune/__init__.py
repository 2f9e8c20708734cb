"""finetune: how hyperparameters affect the fine-tuning of your model, which choice is best, and how sure that is."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Config", "Results", "run"]


def __getattr__(name: str) -> Any:
    """Returns Config, Results or run; imported when first asked for, since `--help` needs no JAX."""
    if name == "Config":
        from finetune.config import Config

        return Config
    if name == "Results":
        from finetune.results import Results

        return Results
    if name == "run":
        from finetune.study import run

        return run
    raise AttributeError(f"module 'finetune' has no attribute {name!r}")
