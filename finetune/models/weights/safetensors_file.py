"""Tensors of .safetensors files: one, or several, shards, with an index that says which tensor is in which.

Nothing is executed: the format is a JSON header and raw numbers, and the library checks every offset.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from finetune.errors import UserError

INDEX = "model.safetensors.index.json"  # of weights in several files


def read_tensors(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """Returns {name: array} of the tensors in a .safetensors file, or in all that an index of shards names, that are
    `wanted`; raises UserError for a bad file, and for shards that do not hold what the index says.
    """
    if path.name != INDEX:
        return _tensors_of(path, wanted, None)
    found: dict[str, np.ndarray] = {}
    shard_of = _shard_of(path)
    for shard in sorted(set(shard_of.values())):
        names = {name for name in shard_of if shard_of[name] == shard}
        found |= _tensors_of(path.with_name(shard), wanted, names)
    return found


def files(path: Path) -> list[Path]:
    """Returns all files of the weights at `path`: an index of shards and each of them, else the file itself."""
    if path.name != INDEX:
        return [path]
    return [path, *(path.with_name(shard) for shard in sorted(set(_shard_of(path).values())))]


def _shard_of(index: Path) -> dict[str, str]:
    """Returns {tensor: name of the file beside `index` that holds it}."""
    try:
        found = json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"]
        names = {str(name): str(shard) for name, shard in found.items()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {index} as an index of shards: {error}") from None
    for shard in names.values():
        if Path(shard).name != shard or Path(shard).suffix != ".safetensors":
            raise UserError(f"{index} names the file {shard!r}, allowed: .safetensors files beside it")
    return names


def _tensors_of(path: Path, wanted: Callable[[str], bool], declared: set[str] | None) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            if declared is not None and names != declared:
                raise UserError(f"{path} and {INDEX} differ in {min(names ^ declared)!r}, allowed: shards of one model")
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} as safetensors: {error}") from None
