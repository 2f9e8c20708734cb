"""Nets of stages: ConvNeXt and ResNet."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights.families.family import Family, Leaves, Settings
from finetune.models.weights.families.vit_line import VIT

_HALVED = 2  # positions of an edge that become one between stages
_PATCHES = {"embeddings/patches/patch/kernel": "patch_size"}
_BACKBONE = ("_?out_(features|indices)", "stage_names")  # of parts that are used alone


def _channels(settings: Settings) -> dict[str, Any]:
    return {"channels": settings.get("num_channels", 3)}


def _derive_convnext(settings: Settings) -> dict[str, Any]:
    scale, stages = settings.get("layer_scale_init_value", 1e-6), settings.get("num_stages", 4)
    if not isinstance(scale, int | float) or scale <= 0:
        raise UserError(f"layer_scale_init_value is {str(scale)[:40]!r}, allowed: above 0")
    depths = settings.get("depths", CONVNEXT.defaults["depths"][1])
    if not isinstance(depths, list) or stages != len(depths):
        raise UserError(f"num_stages is {str(stages)[:40]!r}, allowed: as many as depths are, {str(depths)[:40]}")
    return _channels(settings)


def _describe_convnext(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    del leaves
    return {"num_channels": architecture["channels"], "num_stages": len(architecture["depths"])}


def _read_convnext(leaves: Leaves, settings: Settings) -> Leaves:
    """Returns leaves with patches as dense layers, and kernels of each channel without an axis."""
    found = dict(leaves)
    for path, leaf in leaves.items():
        if path.endswith("patch/kernel") and leaf.ndim == 4:
            found[path] = leaf.reshape(-1, leaf.shape[-1])
        if path.endswith("depthwise/kernel") and leaf.ndim == 4:
            found[path] = leaf[:, :, 0]
    return found


def _write_convnext(leaves: Leaves, architecture: Mapping[str, Any]) -> Leaves:
    found = dict(leaves)
    for path, leaf in leaves.items():
        if path.endswith("patch/kernel"):
            size = architecture["patch_size"] if path.startswith("embeddings/") else _HALVED
            found[path] = leaf.reshape(size, size, -1, leaf.shape[-1])
        if path.endswith("depthwise/kernel"):
            found[path] = leaf[:, :, None]
    return found


_STAGED = Family(
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
CONVNEXT = _STAGED._replace(
    name="ConvNext",
    prefix="convnext.",
    defaults={
        "depths": ("depths", [3, 3, 9, 3]),
        "widths": ("hidden_sizes", [96, 192, 384, 768]),
        "patch_size": ("patch_size", 4),
        "epsilon": ("layer_norm_eps", 1e-12),
    },
    harmless=(*_BACKBONE, "image_size", "drop_path_rate"),
    derive=_derive_convnext,
    derived=("num_channels", "num_stages", "layer_scale_init_value"),
    describe=_describe_convnext,
    read=_read_convnext,
    write=_write_convnext,
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
_KINDS = ("basic", "bottleneck")


def _derive_resnet(settings: Settings) -> dict[str, Any]:
    kind = settings.get("layer_type", _KINDS[1])
    if kind not in _KINDS:
        raise UserError(f"layer_type is {str(kind)[:40]!r}, allowed: {', '.join(_KINDS)}")
    flags = {"strides_first": "downsample_in_first_stage", "strides_early": "downsample_in_bottleneck"}
    found = {ours: int(bool(settings.get(theirs))) for ours, theirs in flags.items()}
    return {**_channels(settings), **found, "is_bottleneck": _KINDS.index(kind)}


def _describe_resnet(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    del leaves
    return {
        "num_channels": architecture["channels"],
        "layer_type": _KINDS[architecture["is_bottleneck"]],
        "downsample_in_first_stage": bool(architecture["strides_first"]),
        "downsample_in_bottleneck": bool(architecture["strides_early"]),
    }


def _read_resnet(leaves: Leaves, settings: Settings) -> Leaves:
    """Returns leaves with convolutions of one position as dense layers."""
    return {path: leaf[0, 0] if leaf.shape[:2] == (1, 1) else leaf for path, leaf in leaves.items()}


def _write_resnet(leaves: Leaves, architecture: Mapping[str, Any]) -> Leaves:
    found = {
        path: leaf[None, None] if path.endswith("conv/kernel") and leaf.ndim == 2 else leaf
        for path, leaf in leaves.items()
    }
    # Steps of training, which are counted and not read.
    norms = [path.removesuffix("variance") for path in leaves if path.endswith("norm/variance")]
    return found | {f"{norm}steps": np.zeros((), np.int64) for norm in norms}


RESNET = _STAGED._replace(
    name="ResNet",
    prefix="resnet.",
    activation_left_out="relu",
    usual_activation="relu",
    defaults={
        "depths": ("depths", [3, 4, 6, 3]),
        "widths": ("hidden_sizes", [256, 512, 1024, 2048]),
        "stem_width": ("embedding_size", 64),
    },
    harmless=_BACKBONE,
    optional=(*_STAGED.optional, "is_live"),
    left_out=(r".*\.num_batches_tracked",),
    derive=_derive_resnet,
    derived=("num_channels", "layer_type", "downsample_in_first_stage", "downsample_in_bottleneck"),
    derives=("channels", "is_bottleneck", "strides_first", "strides_early"),
    describe=_describe_resnet,
    read=_read_resnet,
    write=_write_resnet,
    image_head="classifier.1",
    modules={
        "embedder.embedder.convolution": "embeddings/layer/conv",
        "embedder.embedder.normalization": "embeddings/layer/norm",
    },
    block_modules={
        f"{theirs}.{layer}": f"{ours}/{kind}"
        for theirs, ours in [*((f"layer.{n}", f"layer_{n}") for n in range(3)), ("shortcut", "shortcut")]
        for layer, kind in (("convolution", "conv"), ("normalization", "norm"))
    },
)
