"""Task: all that the core knows of a model. Pure functions over nested-dict parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from finetune.member.metric import Metrics

Params = dict[str, Any]  # nested dict of arrays
Batch = Mapping[str, jax.Array]  # leading axis: examples; "label" int32 [B]

# (params, batch, dropout, keys) -> outputs; `dropout` is a scalar rate in [0, 1), traced or NumPy's 0, or, for
# layers that have rates of their own, hparams.OWN_RATES; and `keys` holds one
# random key per example [B], so that a mask depends on the example and not on how examples are batched.
# Training always has keys, whatever the rate; `keys` None: evaluation.
Apply = Callable[[Params, Batch, jax.Array | float, jax.Array | None], jax.Array]

# As `Apply` in training, with the paths that train -> (outputs, {path: new value} of the state that changes with them).
Update = Callable[[Params, Batch, jax.Array | float, jax.Array | None, frozenset[str]], tuple[Any, dict[str, Any]]]


class Task(NamedTuple):
    """A model and its objective, as pure functions.

    init: random key -> nested-dict params, the head included.
    apply: see `Apply`; logits [B, classes] for classification.
    loss: (outputs, batch, label_smoothing scalar) -> loss of each example [B].
    metrics: name -> (outputs, batch) -> value of each example [B], larger is better, averaged over a split; or a
        `Metric`, which may be of the whole split, and say that smaller is better.
    stem, blocks, head: path prefixes, components joined by "/", that name the model's depth from input to output.
        `last:K` trains everything outside the stem and outside all blocks but the last K; `head` trains the head.
        The head never takes pretrained weights.
    fixed: path patterns of leaves that never train, whatever is chosen: what was counted, not learnt.
    update: what training runs in place of `apply`, where the model has state; `batch["weight"]` is 0 for padding.
    state: top-level names in the tree of what is no parameter but changes in training, such as "batch_stats". It is
        never chosen, differentiated, decayed or penalised; see `params.live_state` for which of it changes.
    weights: {path: array} before training, of all but the head; None: where the settings say.
    """

    init: Callable[[jax.Array], Params]
    apply: Apply
    loss: Callable[[jax.Array, Batch, jax.Array], jax.Array]
    metrics: Metrics
    stem: tuple[str, ...]
    blocks: tuple[str, ...]
    head: str
    fixed: tuple[str, ...] = ()
    update: Update | None = None
    state: tuple[str, ...] = ()
    weights: Mapping[str, Any] | None = None
