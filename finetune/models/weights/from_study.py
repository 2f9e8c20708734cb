"""Weights out of a study: what its trials trained, laid over what they started from, adapters merged."""

import json
from pathlib import Path
from typing import Any

from finetune.config import POOLINGS
from finetune.errors import UserError
from finetune.member import lora
from finetune.models.weights import batch_norm
from finetune.models.weights.sentence_transformers import Declared
from finetune.storage import checkpoint, records

_LIVE = "is_live"  # of an architecture: how its batch norms trained, which is no matter to what they are


def architecture(path: Path) -> dict[str, Any]:
    """Returns what `finetune.models.architecture` gave for the study in `path`.

    Raises UserError for a config.json that is damaged or was not written by a study.
    """
    found = _read(path).get("architecture")
    if not isinstance(found, dict):
        raise UserError(f"{path / 'config.json'} names no architecture, allowed: the work directory of a study")
    return {name: value for name, value in found.items() if name != _LIVE}


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


def parameters(path: Path) -> checkpoint.HostLeaves:
    """Returns the full parameters of a study's best trial at its best epoch; raises UserError if there is none."""
    values = dict(checkpoint.kept(path))
    if not values:
        raise UserError(f"study {str(path)!r} holds no finished trial's weights, allowed: a study that has run")
    identity = max(values, key=lambda each: values[each])
    return load_trial(path, identity)


def load_trial(workdir: Path, identity: str) -> checkpoint.HostLeaves:
    """Returns the full parameters of a trial at its best epoch, adapters merged into the kernels, norms frozen."""
    own = checkpoint.load(workdir / "checkpoints" / "trials" / identity / "best")
    leaves = {**checkpoint.load(workdir / "checkpoints" / "base"), **own}
    if _LIVE in (_read(workdir).get("architecture") or {}):
        leaves = batch_norm.as_leaves(leaves)
    if not any(map(lora.is_adapter, own)):
        return leaves
    rows = {row["id"]: row for row in records.read_trials(workdir)}
    return lora.merged(leaves, rows[identity]["hparams"], lora_scaling(workdir))


def lora_scaling(workdir: Path) -> str:
    """Returns how a study scales its adapters; raises UserError for a config.json that does not say it."""
    try:
        return str(records.read_document(workdir / "config.json")["config"]["lora"]["scaling"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{workdir / 'config.json'} lacks {error}, allowed: the file as finetune wrote it") from None
