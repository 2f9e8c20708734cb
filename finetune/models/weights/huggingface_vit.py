"""A ViT as Hugging Face's transformers stores it: model.safetensors beside config.json."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights import safetensors_file

_SIZES = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "patch_size": "patch_size",
    "epsilon": "layer_norm_eps",
}
_FIXED = {"model_type": "vit", "hidden_act": "gelu_pytorch_tanh", "qkv_bias": True}
_MODULES = {
    "attention.attention.query": "attention/query",
    "attention.attention.key": "attention/key",
    "attention.attention.value": "attention/value",
    "attention.output.dense": "attention/output",
    "layernorm_before": "attention_norm",
    "layernorm_after": "mlp_norm",
    "intermediate.dense": "mlp/up",
    "output.dense": "mlp/down",
}
_NAMES = {ours: theirs for theirs, ours in _MODULES.items()}
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_CLASS_TOKEN, _POSITION = "embeddings.cls_token", "embeddings.position_embeddings"
_PATCH = "embeddings.patch_embeddings.projection"


def config_document(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what transformers reads in config.json for an encoder of this architecture with these leaves."""
    size = architecture["patch_size"]
    rows, columns, _ = leaves["embeddings/position"].shape
    return {
        **_FIXED,
        **{theirs: architecture[ours] for ours, theirs in _SIZES.items()},
        "image_size": [rows * size, columns * size],
        "num_channels": leaves["embeddings/patch/kernel"].shape[0] // size**2,
    }


def tensors(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {transformers' name: array} of an encoder's leaves {path: array}.

    The class token has its position in it already, so that the one which transformers adds is 0.
    """
    size, position = architecture["patch_size"], leaves["embeddings/position"]
    width = position.shape[2]
    found = {
        _CLASS_TOKEN: leaves["embeddings/class_token"].reshape(1, 1, width),
        _POSITION: np.concatenate([np.zeros((1, width), position.dtype), position.reshape(-1, width)])[None],
        f"{_PATCH}.weight": leaves["embeddings/patch/kernel"].reshape(size, size, -1, width).transpose(3, 2, 0, 1),
        f"{_PATCH}.bias": leaves["embeddings/patch/bias"],
    }
    for path, leaf in leaves.items():
        if not path.startswith("embeddings/"):
            found[_name(path)] = leaf.T
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the encoder in the .safetensors file `path`, as `tensors` gave it.

    Raises UserError for files that were not written so.
    """
    found = {name.removeprefix("vit."): array for name, array in safetensors_file.read_tensors(path).items()}
    try:
        settings = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        grid = [edge // settings["patch_size"] for edge in settings["image_size"]]
        token, position, kernel = (found.pop(name) for name in (_CLASS_TOKEN, _POSITION, f"{_PATCH}.weight"))
        embeddings = {
            "class_token": token[0, 0] + position[0, 0],
            "position": position[0, 1:].reshape(*grid, -1),
            "patch/kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)),
            "patch/bias": found.pop(f"{_PATCH}.bias"),
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no ViT ({error}), allowed: the file as finetune.export wrote it") from None
    rest = {_path(name): array.T for name, array in found.items() if not name.startswith("classifier.")}
    return {f"embeddings/{name}": array for name, array in embeddings.items()} | rest


def _name(path: str) -> str:
    """Returns transformers' name of the leaf at this project's `path`: what `_path` reads."""
    target, _, kind = path.rpartition("/")
    leaf = "bias" if kind == "bias" else "weight"
    if target == "norm":
        return f"layernorm.{leaf}"
    block, _, module = target.partition("/")
    return f"encoder.layer.{block.removeprefix('block_')}.{_NAMES[module]}.{leaf}"


def _path(name: str) -> str:
    """Returns this project's path of the tensor `name`, the name itself where an encoder has no such tensor."""
    module, _, leaf = name.rpartition(".")
    block = _BLOCK.fullmatch(module)
    target = "norm" if module == "layernorm" else _MODULES.get(block[2]) if block else None
    if target is None:
        return name
    kind = "bias" if leaf == "bias" else "scale" if target.endswith("norm") else "kernel"
    return f"block_{block[1]}/{target}/{kind}" if block else f"{target}/{kind}"
