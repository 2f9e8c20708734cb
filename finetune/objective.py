"""What is minimised: the loss of an example, the penalties of a member's parameters, and the metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from finetune import metric
from finetune.hparams import Hparams
from finetune.metric import Metrics
from finetune.params import Leaves
from finetune.task import Batch


class Objective(NamedTuple):
    """What a task minimises and is judged by; fields mean what they mean in `Task`."""

    loss: Callable[[Any, Batch, jax.Array], jax.Array]
    metrics: Metrics


def classification(metrics: tuple[str, ...] = ("accuracy",)) -> Objective:
    """Returns the objective of one label an example, "label" int32 [B], and logits [B, C], judged by named metrics."""
    return Objective(
        loss=lambda logits, batch, label_smoothing: cross_entropy(logits, batch["label"], label_smoothing),
        metrics=metric.choose(metric.CLASSIFICATION, metrics),
    )


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: jax.Array | float = 0.0) -> jax.Array:
    """Returns the cross-entropy of each example [B] of `logits` [B, C] with integer `labels` [B].

    The target gives `label_smoothing` of its mass to the uniform distribution over all C classes
    (Szegedy et al. 2016, section 7).
    """
    log_probabilities = jax.nn.log_softmax(logits)
    labels = labels.astype(jnp.int32)[:, None]
    of_label = jnp.take_along_axis(log_probabilities, labels, axis=-1)[:, 0]
    return -(1 - label_smoothing) * of_label - label_smoothing * log_probabilities.mean(axis=-1)


def penalty(params: Leaves, pretrained: Leaves, hparams: Hparams, decayed: frozenset[str]) -> jax.Array:
    """Returns l1·|p|₁ + ½·l2·|p|² over `decayed` leaves + ½·l2_sp·|p − p₀|² over those with pretrained weights p₀.

    L2-SP: Li et al. 2018, "Explicit inductive bias for transfer learning", equation 3. A new head has no p₀.
    """
    total = jnp.zeros((), dtype=hparams.l2.dtype)
    for path, leaf in params.items():
        if path in decayed:
            total += hparams.l1 * jnp.abs(leaf).sum() + 0.5 * hparams.l2 * jnp.square(leaf).sum()
        if path in pretrained:
            total += 0.5 * hparams.l2_sp * jnp.square(leaf - pretrained[path]).sum()
    return total
