"""An exported model, loaded and ready to run, and checked against the task where that is the user's own."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune import models
from finetune.config import Config
from finetune.errors import UserError
from finetune.models.weights import exported, pretrained
from finetune.study import user_task

IMAGE, FEATURES, TOKENS, TYPES = "image", "features", "input_ids", "token_type_ids"  # what models read


class Model(NamedTuple):
    """An exported model, ready to run.

    leaves: every parameter {path: array}. inputs: shape and dtype of one example's arrays in training, {} where an
    earlier version wrote the model. own_task: of a model of the user's own.
    """

    config: Config
    classes: tuple[str, ...]
    architecture: dict[str, Any]
    tokenizer: Path | None
    leaves: dict[str, np.ndarray]
    inputs: dict[str, jax.ShapeDtypeStruct]
    own_task: user_task.OwnTask | None

    @property
    def reads(self) -> str:
        """What of an example it reads."""
        if self.own_task is None:
            return str(models.MODELS[self.architecture["model"]].INPUT)
        return next((name for name in (IMAGE, FEATURES) if name in self.inputs), TOKENS)


def load(directory: Path, own_task: user_task.OwnTask | None = None) -> Model:
    """Returns the model in a directory that finetune.export wrote; raises UserError for any other.

    own_task: of a model of the user's own, or what makes it, as the study had it.
    """
    config, classes = exported.read_config(directory)
    found = exported.read(directory)
    inputs = _shapes(found.get("inputs", {}), directory)
    if config.model.name == user_task.ARCHITECTURE:
        architecture = found["architecture"]
        _check_own(directory, own_task, len(classes), inputs, found)
    elif own_task is not None:
        raise UserError(
            f"--config defines a task, allowed for a model of your own; {directory} holds {config.model.name}"
        )
    else:
        architecture = models.architecture(config.model)
    tokenizer, leaves = pretrained.tokenizer_file(config.model), exported.parameters(directory)
    return Model(config, classes, architecture, tokenizer, leaves, inputs, own_task)


def _shapes(described: Any, directory: Path) -> dict[str, jax.ShapeDtypeStruct]:
    try:
        return {name: jax.ShapeDtypeStruct(each["shape"], each["dtype"]) for name, each in described.items()}
    except (AttributeError, KeyError, TypeError) as error:
        file = directory / exported.FILE
        raise UserError(f"{file} is damaged ({error}), allowed: the file as finetune.export wrote it") from None


def _check_own(
    directory: Path,
    own_task: user_task.OwnTask | None,
    classes: int,
    inputs: dict[str, jax.ShapeDtypeStruct],
    found: dict[str, Any],
) -> None:
    """Raises UserError unless a task is that of the model; a program of other versions cannot be compared with it."""
    if own_task is None:
        raise UserError(
            f"{directory} holds a model of your own, allowed: --config=FILE, the config file that defines its task"
        )
    if not inputs:
        raise UserError(
            f"{directory} does not say what its model reads, allowed: an export by this version of finetune, of a "
            "study that was started again with it"
        )
    here = {name: importlib.metadata.version(name) for name in ("jax", "flax")}
    there = {name: found.get("versions", {}).get(name) for name in here}
    if here == there:
        user_task.check_trained(own_task, classes, inputs, found["architecture"].get("program", ""))
        return
    told = ", ".join(f"{name} {version}" for name, version in there.items())
    print(f"note: trained with {told}, so that the task cannot be compared with the one of then", file=sys.stderr)
