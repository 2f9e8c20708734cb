"""ResNet: convolutions and batch norms, of which files also count the steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights.families.convnext_table import BACKBONE, STAGED, channels
from finetune.models.weights.families.family import Leaves, Settings

_KINDS = ("basic", "bottleneck")


def _derive(settings: Settings) -> dict[str, Any]:
    kind = settings.get("layer_type", _KINDS[1])
    if kind not in _KINDS:
        raise UserError(f"layer_type is {str(kind)[:40]!r}, allowed: {', '.join(_KINDS)}")
    flags = {"strides_first": "downsample_in_first_stage", "strides_early": "downsample_in_bottleneck"}
    found = {ours: int(bool(settings.get(theirs))) for ours, theirs in flags.items()}
    return {**channels(settings), **found, "is_bottleneck": _KINDS.index(kind)}


def _describe(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    del leaves
    return {
        "num_channels": architecture["channels"],
        "layer_type": _KINDS[architecture["is_bottleneck"]],
        "downsample_in_first_stage": bool(architecture["strides_first"]),
        "downsample_in_bottleneck": bool(architecture["strides_early"]),
    }


def _read(leaves: Leaves, settings: Settings) -> Leaves:
    """Returns leaves with convolutions of one position as dense layers."""
    return {path: leaf[0, 0] if leaf.shape[:2] == (1, 1) else leaf for path, leaf in leaves.items()}


def _write(leaves: Leaves, architecture: Mapping[str, Any]) -> Leaves:
    found = {
        path: leaf[None, None] if path.endswith("conv/kernel") and leaf.ndim == 2 else leaf
        for path, leaf in leaves.items()
    }
    # Steps of training, which are counted and not read.
    norms = [path.removesuffix("variance") for path in leaves if path.endswith("norm/variance")]
    return found | {f"{norm}steps": np.zeros((), np.int64) for norm in norms}


RESNET = STAGED._replace(
    name="ResNet",
    prefix="resnet.",
    activation_left_out="relu",
    usual_activation="relu",
    defaults={
        "depths": ("depths", [3, 4, 6, 3]),
        "widths": ("hidden_sizes", [256, 512, 1024, 2048]),
        "stem_width": ("embedding_size", 64),
    },
    harmless=BACKBONE,
    optional=(*STAGED.optional, "is_live"),
    left_out=(r".*\.num_batches_tracked",),
    derive=_derive,
    derived=("num_channels", "layer_type", "downsample_in_first_stage", "downsample_in_bottleneck"),
    derives=("channels", "is_bottleneck", "strides_first", "strides_early"),
    describe=_describe,
    read=_read,
    write=_write,
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
