"""Weights of an earlier study: the best trial in its work directory."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from finetune import records
from finetune.errors import UserError


def architecture(path: Path) -> dict[str, Any]:
    """Returns what `finetune.models.architecture` gave for the study in `path`.

    Raises UserError for a config.json that is damaged or was not written by a study.
    """
    file = path / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    if isinstance(settings, dict) and "format" in settings and not records.is_whole(file):
        raise UserError(f"cannot read {file}: it is damaged, allowed: the file as a study wrote it")
    found = settings.get("architecture") if isinstance(settings, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"{file} names no architecture, allowed: the work directory of a study")
    return found


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the best trial of the study in `path`."""
    from finetune import checkpoint

    return {name: np.asarray(leaf) for name, leaf in checkpoint.load_best(path).items()}
