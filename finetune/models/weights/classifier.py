"""The head as transformers' own classes hold it, where one of them computes what a model computes.

BertForTokenClassification and ViTForImageClassification have a dense layer on what the encoder gives, as ours.
BertForSequenceClassification has one on tanh(dense(first token)): a dense layer that scales by so small a power of two
that tanh gives back every number as it is, and a classifier that scales up again, are a head on the first token. No
class has one on the mean over positions.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_CLASSES = {
    ("bert", "none"): "BertForTokenClassification",
    ("bert", "first"): "BertForSequenceClassification",
    ("vit", "first"): "ViTForImageClassification",
}
_PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
# tanh x = x (1 − x²/3 + ...): for |x| up to 2^-12 that is nearer to x than to any other number of float32.
_LINEAR = 2.0**-12


def class_of(model: str, task: str, pooling: str) -> str | None:
    """Returns the class of transformers that computes a kind of task with this model; None: there is none."""
    return _CLASSES.get((model, "none" if task == "tokens" else pooling))


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


def tensors(name: str | None, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {name in the class called `name`: array} of the head of a model with these leaves {path: array}.

    Without a class the classifier is a tensor that fits none, so that a class refuses the file: it would draw a head.
    """
    weight, bias = leaves["head/kernel"].T, leaves["head/bias"]
    if name is None:
        return {"classifier.weight": np.zeros(0, weight.dtype)}
    pooler = {}
    if name == "BertForSequenceClassification":
        scale = _scale(leaves)
        width = weight.shape[1]
        pooler = {
            "bert.pooler.dense.weight": np.eye(width, dtype=weight.dtype) * weight.dtype.type(scale),
            "bert.pooler.dense.bias": np.zeros(width, weight.dtype),
        }
        weight = weight / weight.dtype.type(scale)
    return {**pooler, "classifier.weight": np.ascontiguousarray(weight), "classifier.bias": bias}


def _scale(leaves: Mapping[str, np.ndarray]) -> float:
    """Returns a power of two that brings all that the last norm of a BERT can give to where tanh is linear.

    A vector of mean 0 and variance 1 has no number beyond the root of one less than its length.
    """
    last = max(int(path.split("/")[0].removeprefix("block_")) for path in leaves if path.startswith("block_"))
    factor, shift = (np.abs(leaves[f"block_{last}/mlp_norm/{leaf}"]).astype(np.float64) for leaf in ("scale", "bias"))
    largest = float((factor * math.sqrt(max(len(factor) - 1, 1)) + shift).max())
    return float(2.0 ** math.floor(math.log2(_LINEAR / max(largest, 1.0))))
