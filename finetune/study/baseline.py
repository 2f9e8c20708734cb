"""The trivial predictor: what is reached without looking at an input, by what is known of the training labels alone.

Its outputs are the same for every example: of classes, labels and tags the logits of their shares in training, so that
the most frequent class is predicted, every label that more than half of the examples have, and the most frequent tag;
of a regression the mean. Metrics and loss of a study are computed of them as of a model's outputs. Like scikit-learn's
DummyClassifier, "most_frequent" and its probabilities "prior", and DummyRegressor, "mean".
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from finetune.data.dataset import Dataset
from finetune.member import metric
from finetune.member.objective import KINDS, Loss
from finetune.member.task import Batch, Task


def baseline(kind: str, task: Task, dataset: Dataset) -> dict[str, float]:
    """Returns {"val_NAME": value, "test_NAME": value} of the loss and of every metric of a kind of task.

    A metric that has no finite value is left out. {} for a task whose outputs are not those of its kind: which they
    are, its loss says; for texts to be found, which all are as similar to; and where a
    metric of the user's own fails on a whole split.
    """
    if not isinstance(task.loss, Loss) or task.loss.of is not KINDS[kind].loss or kind not in _OUTPUTS:
        return {}
    output = _OUTPUTS[kind](dataset.train["label"], max(len(dataset.classes), 1))

    @jax.jit
    def judge(split: Batch) -> dict[str, jax.Array]:
        places = split["label"].shape[: 2 if kind == "tokens" else 1]
        return _judge(task, jnp.broadcast_to(output, (*places, len(output))), split)

    found: dict[str, float] = {}
    for prefix, split in (("val", dataset.validation), ("test", dataset.test)):
        examples = len(split["label"])
        whole = {**split, "index": np.arange(examples, dtype=np.int32), "weight": np.ones(examples, np.float32)}
        try:
            judged = jax.device_get(judge(whole))
        except Exception:  # a metric of the user's own, made for batches, must not cost a study that is done
            return {}
        found |= {f"{prefix}_{name}": float(value) for name, value in judged.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _judge(task: Task, outputs: jax.Array, split: Batch) -> dict[str, jax.Array]:
    """Returns the loss and the metrics of outputs on a split."""
    labels = split["label"]
    found = {metric.LOSS: task.loss(outputs, split, jnp.zeros(())).mean()}
    for name, each in task.metrics.items():
        of, of_split, _ = metric.as_metric(each)
        found[name] = of(outputs, labels, split["weight"]) if of_split else of(outputs, split).mean()
    return found


def _of_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the logarithm of each class's share; one that training lacks counts as half an example."""
    counts = np.bincount(labels[labels >= 0].ravel(), minlength=classes)
    return np.log(np.maximum(counts, 0.5) / counts.sum()).astype(np.float32)


def _of_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the log-odds of each label; one that all or none have counts as missing, or had, by half an example."""
    share = np.clip(labels.sum(axis=0, dtype=np.float64), 0.5, len(labels) - 0.5) / len(labels)
    return np.log(share / (1 - share)).astype(np.float32)


def _of_numbers(labels: np.ndarray, classes: int) -> np.ndarray:
    return labels.mean(dtype=np.float64, keepdims=True).astype(np.float32)


_OUTPUTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "classification": _of_classes,
    "multilabel": _of_labels,
    "regression": _of_numbers,
    "tokens": _of_classes,
    "choice": _of_classes,
}
