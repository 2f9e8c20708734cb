"""ConvNeXt, and what it has in common with other nets of stages."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights.families.family import Family, Leaves, Settings
from finetune.models.weights.families.vit_line import VIT

_HALVED = 2  # positions of an edge that become one between stages
BACKBONE = ("_?out_(features|indices)", "stage_names")  # of parts that are used alone


def channels(settings: Settings) -> dict[str, Any]:
    """Returns "channels"."""
    return {"channels": settings.get("num_channels", 3)}


def _derive(settings: Settings) -> dict[str, Any]:
    scale, stages = settings.get("layer_scale_init_value", 1e-6), settings.get("num_stages", 4)
    if not isinstance(scale, int | float) or scale <= 0:
        raise UserError(f"layer_scale_init_value is {str(scale)[:40]!r}, allowed: above 0")
    depths = settings.get("depths", CONVNEXT.defaults["depths"][1])
    if not isinstance(depths, list) or stages != len(depths):
        raise UserError(f"num_stages is {str(stages)[:40]!r}, allowed: as many as depths are, {str(depths)[:40]}")
    return channels(settings)


def _describe(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    del leaves
    return {"num_channels": architecture["channels"], "num_stages": len(architecture["depths"])}


def _read(leaves: Leaves, settings: Settings) -> Leaves:
    """Returns leaves with patches as dense layers, and kernels of each channel without an axis."""
    found = dict(leaves)
    for path, leaf in leaves.items():
        if path.endswith("patch/kernel") and leaf.ndim == 4:
            found[path] = leaf.reshape(-1, leaf.shape[-1])
        if path.endswith("depthwise/kernel") and leaf.ndim == 4:
            found[path] = leaf[:, :, 0]
    return found


def _write(leaves: Leaves, architecture: Mapping[str, Any]) -> Leaves:
    found = dict(leaves)
    for path, leaf in leaves.items():
        if path.endswith("patch/kernel"):
            size = architecture["patch_size"] if path.startswith("embeddings/") else _HALVED
            found[path] = leaf.reshape(size, size, -1, leaf.shape[-1])
        if path.endswith("depthwise/kernel"):
            found[path] = leaf[:, :, None]
    return found


STAGED = Family(
    name="",
    prefix="",
    sizes={},
    modules={},
    block_modules={},
    activations=VIT.activations,
    optional=("activation", "mean", "deviation"),
    derived=("num_channels",),
    derives=("channels",),
    block="encoder.stages",
    stage="layers",
    poolings=("mean",),
    images=True,
)
CONVNEXT = STAGED._replace(
    name="ConvNext",
    prefix="convnext.",
    defaults={
        "depths": ("depths", [3, 3, 9, 3]),
        "widths": ("hidden_sizes", [96, 192, 384, 768]),
        "patch_size": ("patch_size", 4),
        "epsilon": ("layer_norm_eps", 1e-12),
    },
    harmless=(*BACKBONE, "image_size", "drop_path_rate"),
    derive=_derive,
    derived=("num_channels", "num_stages", "layer_scale_init_value"),
    describe=_describe,
    read=_read,
    write=_write,
    image_head="classifier",
    modules={
        "embeddings.patch_embeddings": "embeddings/patches/patch",
        "embeddings.layernorm": "embeddings/norm",
        "layernorm": "norm",
    },
    stage_modules={"downsampling_layer.0": "halved_norm", "downsampling_layer.1": "halved/patch"},
    block_modules={"dwconv": "depthwise", "layernorm": "norm", "pwconv1": "mlp/up", "pwconv2": "mlp/down"},
    block_arrays={"layer_scale_parameter": "mlp_scale"},
)
