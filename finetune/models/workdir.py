"""Weights of an earlier study: the best trial in its work directory."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from finetune import records
from finetune.errors import UserError
from finetune.models.pooling import POOLINGS
from finetune.models.sentence_transformers import Declared


def architecture(path: Path) -> dict[str, Any]:
    """Returns what `finetune.models.architecture` gave for the study in `path`.

    Raises UserError for a config.json that is damaged or was not written by a study.
    """
    found = _read(path).get("architecture")
    if not isinstance(found, dict):
        raise UserError(f"{path / 'config.json'} names no architecture, allowed: the work directory of a study")
    return found


def declared(path: Path) -> Declared:
    """Returns the pooling that the study in `path` trained with."""
    settings = _read(path).get("config")
    model = settings.get("model") if isinstance(settings, dict) else None
    pooling = model.get("pooling") if isinstance(model, dict) else None
    return Declared(pooling=pooling if pooling in POOLINGS else None, binding=False)


def _read(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    if not isinstance(settings, dict):
        return {}
    if "format" in settings and not records.is_whole(file):
        raise UserError(f"cannot read {file}: it is damaged, allowed: the file as a study wrote it")
    return settings


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the best trial of the study in `path`."""
    from finetune import checkpoint

    return {name: np.asarray(leaf) for name, leaf in checkpoint.load_best(path).items()}
