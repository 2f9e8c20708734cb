"""DINOv2, with and without registers: large ones have gated MLPs, which transformers names otherwise."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.errors import UserError
from finetune.models.weights.families.family import Leaves, Settings
from finetune.models.weights.families.vit_line import OTHER, VIT, VIT_SIZES, derive, describe, read, write

_GATED = "mlp/gated_"  # before layers of a gated MLP, while they are beside the table


def _derive(settings: Settings) -> dict[str, Any]:
    ratio, width, is_gated = settings.get("mlp_ratio", 4), settings["hidden_size"], settings.get("use_swiglu_ffn")
    if type(ratio) not in (int, float) or ratio != int(ratio) or type(width) is not int:
        raise UserError(f"mlp_ratio is {str(ratio)[:40]!r}, allowed: a whole number")
    return {**derive(settings), "is_gated": int(bool(is_gated)), "mlp_width": _mlp_width(width, int(ratio), is_gated)}


def _mlp_width(width: int, ratio: int, is_gated: Any) -> int:
    """Returns the hidden units of an MLP; a gated one has two thirds, rounded up to a multiple of 8."""
    return (int(width * ratio * 2 / 3) + 7) // 8 * 8 if is_gated else width * ratio


def _describe(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    width, units, is_gated = architecture["width"], architecture["mlp_width"], bool(architecture["is_gated"])
    ratio = next(each for each in range(1, units + 1) if _mlp_width(width, each, is_gated) == units)
    return {**describe(architecture, leaves), "mlp_ratio": ratio, "use_swiglu_ffn": is_gated}


def _read(leaves: Leaves, settings: Settings) -> Leaves:
    unread = {"mask_token": np.zeros(settings["hidden_size"], np.float32)}  # which files of classes may leave out
    return unread | {path.replace(_GATED, "mlp/"): leaf for path, leaf in read(leaves, settings).items()}


def _write(leaves: Leaves, architecture: Mapping[str, Any]) -> Leaves:
    mlp = _GATED if architecture["is_gated"] else "mlp/"
    return {path.replace("mlp/", mlp): leaf for path, leaf in write(leaves, architecture).items()}


DINOV2 = OTHER._replace(
    name="Dinov2",
    prefix="dinov2.",
    sizes={ours: theirs for ours, theirs in VIT_SIZES.items() if ours != "mlp_width"},
    defaults={"epsilon": ("layer_norm_eps", 1e-6)},
    # Of its parts that are used alone, of training, and of masked images.
    harmless=(
        *("apply_layernorm", "reshape_hidden_states", "_?out_(features|indices)", "stage_names", "drop_path_rate"),
        *("layerscale_value", "use_mask_token"),
    ),
    derive=_derive,
    derived=(*VIT.derived, "mlp_ratio", "use_swiglu_ffn"),
    derives=("channels", "is_gated", "mlp_width"),
    describe=_describe,
    read=_read,
    write=_write,
    pools=False,
    image_head_reads_mean=True,
    arrays={**OTHER.arrays, "embeddings.mask_token": "mask_token"},
    block_modules={
        "attention.attention.query": "attention/query",
        "attention.attention.key": "attention/key",
        "attention.attention.value": "attention/value",
        "attention.output.dense": "attention/output",
        "norm1": "attention_norm",
        "norm2": "mlp_norm",
        "mlp.fc1": "mlp/up",
        "mlp.fc2": "mlp/down",
        "mlp.weights_in": (f"{_GATED}up", f"{_GATED}gate"),
        "mlp.weights_out": f"{_GATED}down",
    },
    block_arrays={"layer_scale1.lambda1": "attention_scale", "layer_scale2.lambda1": "mlp_scale"},
)
DINOV2_REGISTERS = DINOV2._replace(
    name="Dinov2WithRegisters",
    prefix="dinov2_with_registers.",
    defaults={**DINOV2.defaults, "registers": ("num_register_tokens", 4)},
    resizing="antialiased cubic",
    arrays={**DINOV2.arrays, "embeddings.register_tokens": "embeddings/register"},
)
