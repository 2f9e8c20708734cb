"""Plain functions as tasks."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from finetune.member.objective import Objective, classification
from finetune.member.params import flatten
from finetune.member.task import Apply, Params, Task, Update
from finetune.models.adapters import parts


def from_functions(
    init: Callable[[jax.Array], Params],
    apply: Apply,
    stem: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    head: str = "",
    objective: Objective | None = None,
    update: Update | None = None,
    state: tuple[str, ...] = (),
    weights: Mapping[str, Any] | None = None,
) -> Task:
    """Returns a task from init(key) -> nested dict of arrays and apply(params, batch, dropout, keys) -> outputs.

    stem, blocks, head, update, state: as in `Task`; the head is the last part with a matrix unless named.
    objective: classification, with logits [B, C] for outputs, unless given. weights: nested or {path: array}.
    Training always has keys, one of each example, evaluation has None.
    finetune.models.dropout.dropout(x, dropout, keys, site) drops as the other models do; in a loop over layers, its
    `site` tells them apart. Raises UserError for parts
    that the parameters do not have.
    """
    order: dict[str, int] = {}  # place of each top-level name, which a traced dict forgets

    def ordered(key: jax.Array) -> Params:
        params = init(key)
        order.update({name: place for place, name in enumerate(params)})
        return params

    shapes = jax.eval_shape(ordered, jax.random.key(0))
    parameters = {name: part for name, part in shapes.items() if name not in state}
    head = head or parts.last_part(parameters, order)
    parts.check(list(flatten(parameters)), stem, blocks, head)
    objective = objective or classification()
    return Task(
        init, apply, objective.loss, objective.metrics, stem, blocks, head,
        update=update, state=state, weights=parts.flat_weights(weights),
    )  # fmt: skip
