"""ViT and DeiT, and what all have that keep their patches: DINOv2, and the towers of CLIP and SigLIP."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights.families.family import ACTIVATIONS, SIZES, Family, Leaves, Settings

VIT_SIZES = {ours: theirs for ours, theirs in SIZES.items() if ours not in ("vocabulary", "positions")}
VIT_SIZES = {**VIT_SIZES, "patch_size": "patch_size"}
_PATCH, _POSITION, _BEFORE = "embeddings/patch/kernel", "embeddings/position", "embeddings/token_position"


def derive(settings: Settings) -> dict[str, Any]:
    """Returns "channels"; raises UserError for an image size that is neither a number nor two."""
    edges(settings.get("image_size", 224), "image_size")
    return {"channels": settings.get("num_channels", 3)}


def edges(size: Any, name: str) -> tuple[int, int]:
    """Returns rows and columns of a size, a number of pixels or two; raises UserError for anything else."""
    found = size if isinstance(size, list) else [size, size]
    if len(found) != 2 or not all(type(edge) is int and edge > 0 for edge in found):
        raise UserError(f"{name} is {str(size)[:40]!r}, allowed: pixels of an edge, or two of them")
    return found[0], found[1]


def describe(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the size and channels of images that leaves {path: array} are for."""
    size, (rows, columns, _) = architecture["patch_size"], leaves[_POSITION].shape
    image = [rows * size, columns * size]
    return {
        "image_size": image[0] if image[0] == image[1] and "channels" in architecture else image,
        "num_channels": len(leaves[_PATCH]) // size**2,
    }


def read(leaves: Leaves, settings: Settings) -> Leaves:
    """Returns leaves with patches as a dense layer, and positions as a grid, those of tokens before it apart."""
    found = dict(leaves)
    kernel, position = found.get(_PATCH), found.get(_POSITION)
    if kernel is not None and kernel.ndim == 4:
        found[_PATCH] = kernel.reshape(-1, kernel.shape[-1])
    if position is None or position.ndim != 2:
        return found
    size = settings["patch_size"] if type(settings.get("patch_size")) is int else 0
    grid = tuple(edge // size for edge in edges(settings.get("image_size", 224), "image_size")) if size > 0 else (0, 0)
    before = len(position) - math.prod(grid)
    if not 0 <= before <= 2:
        return found
    if before:
        found[_BEFORE] = position[:before]
    return found | {_POSITION: position[before:].reshape(*grid, -1)}


def write(leaves: Leaves, architecture: Mapping[str, Any]) -> Leaves:
    """Returns leaves as `read` finds them."""
    found, size = dict(leaves), architecture["patch_size"]
    kernel, position = found[_PATCH], found[_POSITION]
    width = position.shape[-1]
    found[_PATCH] = kernel.reshape(size, size, -1, width)
    tokens = architecture.get("class_tokens", 1)
    # Where a token has its position in it already, the one that transformers adds is 0.
    before = found.pop(_BEFORE, np.zeros((tokens, width), position.dtype))
    return found | {_POSITION: np.concatenate([before, position.reshape(-1, width)])}


VIT = Family(
    name="ViT",
    prefix="vit.",
    sizes=VIT_SIZES,
    defaults={"epsilon": ("layer_norm_eps", 1e-12)},
    activations=(*ACTIVATIONS, "gelu_pytorch_tanh", "quick_gelu"),
    usual_activation="gelu_pytorch_tanh",  # as AugReg has it
    fixed={"qkv_bias": True},
    harmless=("encoder_stride",),  # of a decoder
    derive=lambda settings: {**derive(settings), "positioned": 1},
    derived=("image_size", "num_channels"),
    describe=describe,
    read=read,
    write=write,
    poolings=("first", "mean", "max"),
    optional=("activation", "positioned", "channels", "mean", "deviation"),
    pools=True,
    image_head="classifier",
    images=True,
    modules={"embeddings.patch_embeddings.projection": "embeddings/patch", "layernorm": "norm"},
    arrays={"embeddings.cls_token": "embeddings/class_token", "embeddings.position_embeddings": _POSITION},
    block_modules={
        "attention.attention.query": "attention/query",
        "attention.attention.key": "attention/key",
        "attention.attention.value": "attention/value",
        "attention.output.dense": "attention/output",
        "layernorm_before": "attention_norm",
        "layernorm_after": "mlp_norm",
        "intermediate.dense": "mlp/up",
        "output.dense": "mlp/down",
    },
)
OTHER = VIT._replace(
    usual_activation="gelu",
    derive=derive,
    derives=("channels",),
    constants={"positioned": 1},
    optional=("activation", "mean", "deviation"),
)
DEIT = OTHER._replace(
    name="DeiT",
    usual_activation=VIT.usual_activation,
    prefix="deit.",
    constants={"class_tokens": 2, "positioned": 2},
    arrays={**VIT.arrays, "embeddings.distillation_token": "embeddings/distillation_token"},
)
