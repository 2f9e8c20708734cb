"""Flax Linen modules as tasks."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from finetune.member.dropout import at_least_zero
from finetune.member.objective import Objective, classification
from finetune.member.params import flatten, live_state
from finetune.member.place import STREAM, loop_place, own_key, root
from finetune.member.task import Batch, Params, Task
from finetune.models.adapters import parts
from finetune.models.adapters.forward_pass import ForwardPass, batch_key

_PASSING = ("intermediates", "perturbations")  # collections that do not outlive a call


def from_linen(
    module: nn.Module,
    example: Mapping[str, jax.ShapeDtypeStruct],
    stem: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    head: str = "",
    objective: Objective | None = None,
    fixed: tuple[str, ...] = (),
    call: parts.Call | None = None,
    weights: Mapping[str, Any] | None = None,
) -> Task:
    """Returns a task from a Linen module, which stays as it is.

    example: shape and dtype of ONE example by data key, without batch axis; stem, blocks, head, fixed: as in `Task`;
        the head is the last top-level module with a kernel unless named.
    objective: classification, with logits [B, C] for outputs, unless given.
    call: (module, batch, train) -> outputs. Else the module is called as module(batch, dropout, keys), if it takes
        `batch` and `keys`, or with the one array of the data and its train, training, is_training or deterministic.
    weights: params, and other collections beside them, {collection: nested dict}, that training starts from.

    Every nn.Dropout whose rate is not 0 drops at the trial's `dropout`, at its own rate where that is not set; in loops
    such as nn.scan each pass drops others. make_rng gives keys that belong to the batch, another one in each, as layers
    use it that draw by themselves (attention's dropout_rate): trials of other batch sizes then train apart.

    An nn.BatchNorm whose scale or bias trains uses the statistics of the batch in training, padding left out, and
    updates its running averages; one that is frozen uses these. Raises UserError for parts that
    the module does not have.
    """
    own = {"batch", "keys"} <= set(inspect.signature(type(module).__call__).parameters)
    called = call if call or own else parts.usual_call(type(module), example)
    first: dict[str, int] = {}  # place of each top-level module, which a traced dict forgets

    def run(module: Any, batch: Batch, train: bool, dropout: Any, keys: Any) -> Any:
        _reseed(module, keys)
        return module(batch, at_least_zero(dropout), keys) if called is None else called(module, batch, train)

    def init(key: jax.Array) -> Params:
        arguments = parts.zeros(example), False, 0.0, None
        with nn.intercept_methods(_answering(ForwardPass(0.0, None))):
            tree = {**module.init(key, *arguments, method=run)}
        params = tree.pop("params", {})
        first.update({name: place for place, name in enumerate(params)})
        kept = {name: collection for name, collection in tree.items() if name not in _PASSING}
        parts.check_names(params, kept)
        return {**params, **kept}

    shapes = jax.eval_shape(init, jax.random.key(0))
    state = tuple(name for name in shapes if name not in first)
    parameters = {name: part for name, part in shapes.items() if name in first}
    head = head or parts.last_part(parameters, first)
    parts.check(list(flatten(parameters)), stem, blocks, head)

    def variables(tree: Params) -> dict[str, Any]:
        collections = {name: tree[name] for name in state}
        return {"params": {name: part for name, part in tree.items() if name not in state}, **collections}

    def apply(params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None) -> Any:
        with nn.intercept_methods(_answering(ForwardPass(dropout, keys))):
            arguments = batch, keys is not None, dropout, keys
            return module.apply(variables(params), *arguments, method=run, rngs=_streams(keys))

    def update(
        params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None, trained: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        live = live_state(task, flatten(params), trained)
        forward_pass = ForwardPass(dropout, keys, live, batch.get("weight"))
        with nn.intercept_methods(_answering(forward_pass)):
            arguments = batch, True, dropout, keys
            outputs, changed = module.apply(
                variables(params), *arguments, method=run, mutable=list(state), rngs=_streams(keys)
            )
        leaves = flatten({**params, **changed})
        return outputs, {path: leaves[path] for path in live}

    objective = objective or classification()
    task = Task(
        init, apply, objective.loss, objective.metrics, stem, blocks, head, fixed,
        update=update if state else None, state=state, weights=parts.flat_weights(weights),
    )  # fmt: skip
    return task


def _streams(keys: jax.Array | None) -> dict[str, jax.Array]:
    return {} if keys is None else {STREAM: root()}


def _reseed(module: nn.Module, keys: jax.Array | None) -> None:
    """Lets make_rng of a module that trains give keys that depend on the examples' `keys`."""
    if keys is not None:
        make_rng = lambda name=STREAM: batch_key(keys, own_key(module))  # noqa: E731 - of this module
        object.__setattr__(module, "make_rng", make_rng)


def _answering(forward_pass: ForwardPass) -> Callable[..., Any]:
    """Returns the interceptor that lets `forward_pass` answer for dropout, random keys and batch normalisation."""

    def intercept(call: Callable[..., Any], inputs: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        module, path = context.module, "/".join(context.module.path)
        _reseed(module, forward_pass.keys)
        if context.method_name != "__call__" or not isinstance(module, (nn.Dropout, nn.BatchNorm)):
            return call(*inputs, **keywords)
        x, *rest = inputs or (keywords.pop("inputs", keywords.pop("x", None)),)
        if isinstance(module, nn.Dropout):
            asked = rest[0] if rest else keywords.get("deterministic")
            off = module.deterministic if asked is None else asked
            if off or not forward_pass.drops(path, module.rate):
                return x
            return forward_pass.drop(path, x, module.rate, module.broadcast_dims, loop_place(module))
        live = forward_pass.is_live(path)
        mask = forward_pass.counted(x, keywords.get("mask")) if live else None
        built = module.use_running_average
        # The switch may be set where a layer is built or where it is called, and Flax allows only one of them.
        object.__setattr__(module, "use_running_average", None)
        try:
            return call(x, use_running_average=not live, mask=mask)
        finally:
            object.__setattr__(module, "use_running_average", built)

    return intercept
