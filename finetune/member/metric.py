"""Metrics: by what a task is judged, on every example or on a whole split, by name or the user's own function.

Functions of a whole split take outputs [N, ...], labels [N, ...] and weight [N], 0 for padding and else 1, and give a
scalar. They are pure and shaped by their arguments alone, so that they run inside the program of a population.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from finetune.errors import one_of

LOSS = "loss"  # every task has it, smaller is better
Mean = Callable[[Any, Any], jax.Array]  # (outputs, batch) -> value of each example [B]


class Metric(NamedTuple):
    """A metric that is not a plain mean of which more is better.

    of: (outputs, batch) -> value of each example [B], averaged over a split; if `of_split`, (outputs [N, ...],
        labels [N, ...], weight [N]) -> scalar.
    """

    of: Callable[..., jax.Array]
    of_split: bool = False
    larger_is_better: bool = True


Metrics = dict[str, Metric | Mean]  # a plain function is a mean, larger is better


def as_metric(metric: Metric | Mean) -> Metric:
    """Returns a metric in full."""
    return metric if isinstance(metric, Metric) else Metric(metric)


def larger_is_better(metrics: Mapping[str, Metric | Mean], name: str) -> bool:
    """Says whether more of `name`, the loss or one of `metrics`, is better."""
    return name != LOSS and as_metric(metrics[name]).larger_is_better


def choose(named: Mapping[str, Metric | Mean], asked: tuple[str, ...]) -> Metrics:
    """Returns those of a task's metrics that are asked for; raises UserError for an unknown one."""
    for name in asked:
        if name not in named:
            raise one_of("evaluation.metrics", name, named)
    return {name: named[name] for name in asked}


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns 1 for each example [B] whose largest logit is its label's, else 0."""
    return (logits.argmax(axis=-1) == labels).astype(logits.dtype)


def confusion(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns counts [C, C], true class x class of the largest logit.

    outputs [N, C] with labels [N], or [N, T, C] with [N, T], where labels below 0 do not count.
    """
    classes = outputs.shape[-1]
    counts = jnp.broadcast_to(weight.reshape(-1, *[1] * (labels.ndim - 1)), labels.shape).astype(outputs.dtype)
    true = jax.nn.one_hot(labels, classes, dtype=outputs.dtype) * counts[..., None]  # a label below 0 is no class
    found = jax.nn.one_hot(outputs.argmax(axis=-1), classes, dtype=outputs.dtype)
    return true.reshape(-1, classes).T @ found.reshape(-1, classes)


def macro_f1(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the mean F1 of the classes that occur in the labels or in the predictions, as scikit-learn does."""
    counts = confusion(outputs, labels, weight)
    size = counts.sum(axis=0) + counts.sum(axis=1)
    scores = 2 * jnp.diagonal(counts) / jnp.where(size > 0, size, 1)
    return scores.sum() / jnp.maximum((size > 0).sum(), 1)


def matthews(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the correlation of labels and predictions (Gorodkin 2004, R_K); 0 where one of them is constant."""
    counts = confusion(outputs, labels, weight)
    shares = counts / jnp.maximum(counts.sum(), 1)
    true, found = shares.sum(axis=1), shares.sum(axis=0)
    covariance = jnp.trace(shares) - (true * found).sum()
    constant = ((counts.sum(axis=0) > 0).sum() < 2) | ((counts.sum(axis=1) > 0).sum() < 2)
    spread = (1 - jnp.square(true).sum()) * (1 - jnp.square(found).sum())
    return jnp.where(constant, 0, covariance / jnp.sqrt(jnp.where(constant, 1, spread)))


def accuracy_of_tokens(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the share of labelled tokens, [N, T] of 0 or more, whose largest logit is their label's."""
    counts = confusion(outputs, labels, weight)
    return jnp.trace(counts) / jnp.maximum(counts.sum(), 1)


def ranks(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the rank of each of `values` [N] among those with weight, from 1; ties share the mean of theirs."""
    values = jnp.where(weight > 0, values, jnp.inf)
    ordered = jnp.sort(values)
    below, up_to = (jnp.searchsorted(ordered, values, side=side, method="sort") for side in ("left", "right"))
    return (below + up_to + 1).astype(values.dtype) / 2


def _auc_of_scores(scores: jax.Array, positive: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the area under the ROC curve, by the Mann-Whitney statistic, and whether both kinds are there."""
    places = ranks(scores, weight)
    yes = jnp.where(weight > 0, positive, 0).astype(scores.dtype)
    number, others = yes.sum(), (weight > 0).sum().astype(scores.dtype) - yes.sum()
    known = (number > 0) & (others > 0)
    # The mean first: a sum of ranks would not be exact in float32.
    mean = (yes * places).sum() / jnp.maximum(number, 1)
    return (mean - (number + 1) / 2) / jnp.maximum(others, 1), known


def _mean_auc(scores: jax.Array, positive: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the mean area over columns [N, C] that hold both kinds; one half where none does."""
    areas, known = jax.vmap(_auc_of_scores, in_axes=(1, 1, None))(scores, positive, weight)
    mean = jnp.where(known, areas, 0).sum() / jnp.maximum(known.sum(), 1)
    return jnp.where(known.any(), mean, 0.5)


def auc(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the area under the ROC curve; of more than two classes the mean of each against the rest.

    A class that the split lacks is left out of the mean.
    """
    if outputs.shape[-1] == 2:
        return _mean_auc(outputs[:, 1:] - outputs[:, :1], labels[:, None] == 1, weight)
    return _mean_auc(jax.nn.softmax(outputs), jax.nn.one_hot(labels, outputs.shape[-1]), weight)


def _of_classes(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (labels that are right, labels and predictions) of each class [C]; a logit above 0 predicts it."""
    counts = weight[:, None].astype(outputs.dtype)
    found = (outputs > 0) * counts
    return (found * labels).sum(axis=0), found.sum(axis=0) + (labels * counts).sum(axis=0)


def micro_f1_of_labels(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the F1 of all pairs of example and class together; labels are multi-hot [N, C]."""
    right, size = _of_classes(outputs, labels, weight)
    return 2 * right.sum() / jnp.maximum(size.sum(), 1)


def macro_f1_of_labels(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the mean F1 of all classes, 0 for one without label and prediction; labels are multi-hot [N, C]."""
    right, size = _of_classes(outputs, labels, weight)
    return (2 * right / jnp.maximum(size, 1)).mean()


def root_mean_squared_error(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the root of the mean squared error of outputs [N, 1]."""
    errors = jnp.where(weight > 0, outputs[:, 0] - labels, 0)
    return jnp.sqrt(jnp.square(errors).sum() / jnp.maximum(weight.sum(), 1).astype(outputs.dtype))


def pearson(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the correlation of outputs [N, 1] and labels; 0 where one of them is constant."""
    counts = weight > 0

    def standardised(values: jax.Array) -> jax.Array:
        values = jnp.where(counts, values, values[jnp.argmax(counts)])
        spread = values.max() - values.min()
        # Between 0 and 1 first, so that squares neither overflow nor vanish.
        shares = jnp.where(counts, (values - values.min()) / jnp.where(spread > 0, spread, 1), 0)
        away = jnp.where(counts, shares - shares.sum() / jnp.maximum(counts.sum(), 1).astype(shares.dtype), 0)
        return jnp.where(spread > 0, away / jnp.sqrt(jnp.where(spread > 0, jnp.square(away).sum(), 1)), 0)

    return (standardised(outputs[:, 0]) * standardised(labels.astype(outputs.dtype))).sum()


def spearman(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the correlation of the ranks of outputs [N, 1] and labels; 0 where one of them is constant."""
    counts = (weight > 0).astype(outputs.dtype)
    places = [ranks(values, weight) for values in (outputs[:, 0], labels.astype(outputs.dtype))]
    # As shares of the split, so that squares stay small; the mean rank is known.
    a, b = ((place / counts.sum() - 0.5 - 0.5 / counts.sum()) * counts for place in places)
    spread = jnp.square(a).sum() * jnp.square(b).sum()
    return jnp.where(spread > 0, (a * b).sum() / jnp.sqrt(jnp.where(spread > 0, spread, 1)), 0)


def unit(vectors: jax.Array) -> jax.Array:
    """Returns vectors [..., D] of length 1; zeros stay."""
    squares = jnp.square(vectors).sum(axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.where(squares > 0, squares, 1))


_AT_ONCE = 32  # examples whose similarities to all others are held in memory


def _of_places(outputs: jax.Array, weight: jax.Array, value: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """Returns the mean of value(texts that are more similar, texts as similar) over all examples of a split.

    outputs [N, 2, D]: of the second texts of the split, its own is looked for by the first of an example.
    """
    first, second = unit(outputs[:, 0]), unit(outputs[:, 1])

    def of_one(place: jax.Array) -> jax.Array:
        similar = second @ first[place]
        counted = (weight > 0).astype(outputs.dtype)
        more, same = (((each * counted).sum()) for each in (similar > similar[place], similar == similar[place]))
        return value(more, same)

    values = jax.lax.map(of_one, jnp.arange(len(outputs)), batch_size=min(_AT_ONCE, len(outputs)))
    return jnp.where(weight > 0, values, 0).sum() / jnp.maximum((weight > 0).sum(), 1).astype(outputs.dtype)


def found_first(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the share of examples whose own second text is the most similar of the split; ties share."""
    del labels
    return _of_places(outputs, weight, lambda more, same: jnp.where(more == 0, 1 / jnp.maximum(same, 1), 0))


def reciprocal_rank(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the mean of 1 / place of an example's own second text, by similarity; ties have their mean place."""
    del labels
    return _of_places(outputs, weight, lambda more, same: 1 / (more + (same + 1) / 2))


CLASSIFICATION: Metrics = {
    "accuracy": lambda logits, batch: accuracy(logits, batch["label"]),
    "macro_f1": Metric(macro_f1, of_split=True),
    "matthews": Metric(matthews, of_split=True),
    "auc": Metric(auc, of_split=True),
}
CHOICE: Metrics = {"accuracy": CLASSIFICATION["accuracy"]}
CONTRASTIVE: Metrics = {
    "accuracy": Metric(found_first, of_split=True),
    "reciprocal_rank": Metric(reciprocal_rank, of_split=True),
}
TOKENS: Metrics = {
    "accuracy": Metric(accuracy_of_tokens, of_split=True),
    "macro_f1": Metric(macro_f1, of_split=True),
    "matthews": Metric(matthews, of_split=True),
}
MULTILABEL: Metrics = {
    "accuracy": lambda logits, batch: ((logits > 0) == (batch["label"] > 0)).all(axis=-1).astype(logits.dtype),
    "micro_f1": Metric(micro_f1_of_labels, of_split=True),
    "macro_f1": Metric(macro_f1_of_labels, of_split=True),
    "auc": Metric(_mean_auc, of_split=True),
}
REGRESSION: Metrics = {
    "rmse": Metric(root_mean_squared_error, of_split=True, larger_is_better=False),
    "spearman": Metric(spearman, of_split=True),
    "pearson": Metric(pearson, of_split=True),
}
