"""The head as transformers' own classes hold it, where one of them computes what a model computes.

Classes for tokens, and those for images, have a dense layer on what the encoder gives, as ours; DINOv2's also reads the
mean over patches, which it may be told to weigh by 0. Those for texts have one on f(dense(first token)). Where f is
tanh, a dense layer that scales by so small a power of two that tanh gives back every number as it is, and a classifier
that scales up again, are a head on the first token. Where f is ReLU or GELU, f(x) − f(−x) = x: the dense layer gives
what the head gives, and its negative, and the classifier subtracts one from the other, where there is room for both. No
class has one on the mean over positions.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.models.weights.families import FAMILIES
from finetune.models.weights.families.family import Head

_TOKENS, _TEXTS, _IMAGES = "ForTokenClassification", "ForSequenceClassification", "ForImageClassification"
_PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
# tanh x = x (1 − x²/3 + ...): for |x| up to 2^-12 that is nearer to x than to any other number of float32.
_LINEAR = 2.0**-12


def class_of(architecture: Mapping[str, Any], task: str, pooling: str, outputs: int) -> str | None:
    """Returns the class of transformers that computes a kind of task with this model; None: there is none."""
    if architecture["model"] not in FAMILIES:
        return None
    family = FAMILIES[architecture["model"]]
    if family.images:
        return f"{family.name}{_IMAGES}" if family.image_head and pooling == family.poolings[0] else None
    if task == "tokens":
        return f"{family.name}{_TOKENS}" if family.classifies_tokens else None
    if task not in _PROBLEMS:
        return None
    head = family.head
    if pooling != "first" or head is None or not (head.odd or 2 * outputs <= architecture["width"]):
        return None
    return f"{family.name}{_TEXTS}"


def prefix(model: str) -> str:
    """Returns what stands before an encoder's tensors in a class with a head."""
    return FAMILIES[model].prefix


def peft_task(name: str | None) -> str:
    """Returns what PEFT calls the task of the class called `name`."""
    if name is None:
        return "FEATURE_EXTRACTION"
    return "TOKEN_CLS" if name.endswith(_TOKENS) else "SEQ_CLS"


def config_document(name: str | None, task: str, classes: list[str]) -> dict[str, Any]:
    """Returns what config.json says of the head for the class called `name`."""
    labels = classes or ["value"]
    found: dict[str, Any] = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "dtype": "float32",
    }
    if task in _PROBLEMS:
        found["problem_type"] = _PROBLEMS[task]
    return found | ({"architectures": [name]} if name else {})


def tensors(name: str | None, model: str, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {name in the class called `name`: array} of the head of a `model` with these leaves {path: array}.

    Without a class the classifier is a tensor that fits none, so that a class refuses the file: it would draw a head.
    There is no tensor where transformers has no class that would read the file.
    """
    weight, bias = leaves["head/kernel"].T, leaves["head/bias"]
    if name is None:
        family = FAMILIES[model]
        return {} if family.images and not family.image_head else {"classifier.weight": np.zeros(0, weight.dtype)}
    if name.endswith(_IMAGES) and FAMILIES[model].image_head_reads_mean:
        weight = np.concatenate([weight, np.zeros_like(weight)], axis=1)
    if not name.endswith(_TEXTS):
        layer = FAMILIES[model].image_head or "classifier"
        return {f"{layer}.weight": np.ascontiguousarray(weight), f"{layer}.bias": bias}
    head = FAMILIES[model].head
    assert head is not None, f"{name} is a class of a family with a head"
    return _scaled(head, weight, bias, _scale(leaves)) if head.odd else _doubled(head, weight, bias)


def _scaled(head: Head, weight: np.ndarray, bias: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    width, factor = weight.shape[1], weight.dtype.type(scale)
    return {
        f"{head.dense}.weight": np.eye(width, dtype=weight.dtype) * factor,
        f"{head.dense}.bias": np.zeros(width, weight.dtype),
        f"{head.classifier}.weight": np.ascontiguousarray(weight / factor),
        f"{head.classifier}.bias": bias,
    }


def _doubled(head: Head, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    outputs, width = weight.shape
    rest, one = width - 2 * outputs, np.eye(outputs, dtype=weight.dtype)
    return {
        f"{head.dense}.weight": np.concatenate([weight, -weight, np.zeros((rest, width), weight.dtype)]),
        f"{head.dense}.bias": np.concatenate([bias, -bias, np.zeros(rest, weight.dtype)]),
        f"{head.classifier}.weight": np.concatenate([one, -one, np.zeros((outputs, rest), weight.dtype)], axis=1),
        f"{head.classifier}.bias": np.zeros_like(bias),
    }


def _scale(leaves: Mapping[str, np.ndarray]) -> float:
    """Returns a power of two that brings all that the last norm of a BERT can give to where tanh is linear.

    A vector of mean 0 and variance 1 has no number beyond the root of one less than its length.
    """
    last = max(int(path.split("/")[0].removeprefix("block_")) for path in leaves if path.startswith("block_"))
    factor, shift = (np.abs(leaves[f"block_{last}/mlp_norm/{leaf}"]).astype(np.float64) for leaf in ("scale", "bias"))
    largest = float((factor * math.sqrt(max(len(factor) - 1, 1)) + shift).max())
    return float(2.0 ** math.floor(math.log2(_LINEAR / max(largest, 1.0))))
