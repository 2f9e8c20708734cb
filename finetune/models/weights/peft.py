"""Adapters of a trial for PEFT: PeftModel.from_pretrained(AutoModel.from_pretrained(BASE), DIR).

adapter_config.json         rank, alpha and the adapted modules
adapter_model.safetensors   base_model.model.MODULE.lora_A.weight [r, d_in] and .lora_B.weight [d_out, r]
head.safetensors            linear.weight [classes, width] and linear.bias of the head, which PEFT does not read

Where a class of transformers computes what the model computes, see `classifier`, the base is that class in place of
AutoModel, of as many labels, and adapter_model.safetensors holds the head too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from finetune.errors import UserError
from finetune.member import lora
from finetune.models.weights import classifier
from finetune.models.weights.families import FAMILIES

_PREFIX = "base_model.model."
_INSTEAD = "allowed: an export without --adapter, which holds everything"


def write(
    directory: Path,
    model: str,
    base: str,
    leaves: Mapping[str, np.ndarray],
    frozen: Mapping[str, np.ndarray],
    hparams: Mapping[str, Any],
    scaling: str,
    name: str | None,
) -> None:
    """Writes the adapters of a trial into an empty directory.

    model: name of the architecture; base: where its weights come from; leaves: what the trial trained, and frozen: what
    it did not, {path: array}; name: as `classifier.class_of` gives it.
    Raises UserError for a model without Hugging Face's names, and for a trial that trained no adapters or more.
    """
    if model not in FAMILIES or FAMILIES[model].images:
        raise UserError(f"--adapter: {model} has no module names in PEFT's format, {_INSTEAD}")
    adapters = {path: leaf for path, leaf in leaves.items() if lora.is_adapter(path)}
    others = [path for path in leaves if path not in adapters and not path.startswith("head/")]
    if not adapters or others:
        also = f"also trained {others[0]}" if adapters else "trained no adapters"
        raise UserError(f"--adapter: the trial {also}, {_INSTEAD}")
    inside = classifier.prefix(model) if name else ""
    modules = {layer: f"{inside}{FAMILIES[model].module(layer)}" for layer in lora.layers(adapters)}
    head = classifier.tensors(name, model, {**frozen, **leaves})
    tensors = {f"{_PREFIX}{each}": array for each, array in head.items()}
    for layer, module in modules.items():
        for leaf in ("a", "b"):
            array = np.ascontiguousarray(adapters[f"{lora.ROOT}/{layer}/{leaf}"].T)
            tensors[f"{_PREFIX}{module}.lora_{leaf.upper()}.weight"] = array
    alpha = float(hparams["lora_alpha"])
    document = {
        "peft_type": "LORA",
        "task_type": classifier.peft_task(name),
        "base_model_name_or_path": base,
        "r": int(hparams["lora_rank"]),
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": float(hparams["dropout"]),
        "use_rslora": scaling == "alpha/sqrt(rank)",
        "target_modules": list(modules.values()),
        "modules_to_save": sorted({_module(each) for each in head}) if name else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    _save(directory / "adapter_model.safetensors", tensors)
    linear = {"linear.weight": leaves["head/kernel"].T, "linear.bias": leaves["head/bias"]}
    _save(directory / "head.safetensors", {each: np.ascontiguousarray(leaf) for each, leaf in linear.items()})


def _module(tensor: str) -> str:
    """Returns the module of a class that a tensor of its head is in: bert.pooler of bert.pooler.dense.bias."""
    return ".".join(tensor.split(".")[:-1]).removesuffix(".dense").removesuffix(".out_proj")


def _save(file: Path, tensors: dict[str, np.ndarray]) -> None:
    file.write_bytes(save(tensors, metadata={"format": "pt"}))
