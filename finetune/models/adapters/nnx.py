"""Flax NNX modules as tasks, by split, merge and pure dicts alone."""

import functools
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import jax
from flax import nnx, traverse_util
from flax.errors import TraceContextError
from flax.nnx.tracers import TraceState

from finetune.member.dense import dense_output
from finetune.member.objective import Objective, classification
from finetune.member.params import flatten, live_state
from finetune.member.place import Place, hashed, refusal
from finetune.member.task import Batch, Params, Task
from finetune.models.adapters import parts
from finetune.models.adapters.forward_pass import ForwardPass, batch_key

_STATE = "batch_stats"
_PATH = "_finetune_path"  # attribute of a layer that runs: where it is

_running: ContextVar[ForwardPass] = ContextVar("running")
_outside: ContextVar[TraceState] = ContextVar("outside")  # of a transformation inside the model


def from_nnx(
    make: Callable[[nnx.Rngs], nnx.Module],
    example: Mapping[str, jax.ShapeDtypeStruct],
    stem: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    head: str = "",
    objective: Objective | None = None,
    call: parts.Call | None = None,
    weights: nnx.Module | Mapping[str, Any] | None = None,
) -> Task:
    """Returns a task from what makes an NNX module, whose class stays as it is: make(rngs) -> module.

    Parameters are its nnx.Param, named by their paths, such as "blocks/0/kernel"; its state is its nnx.BatchStat, under
    "batch_stats". example: shape and dtype of ONE example by data key; stem, blocks, head: as in `Task`; the head is
    the last attribute with a kernel unless named. objective: classification, with logits [B, C], unless given.
    call: (module, batch, train) -> outputs; else the module is called with the one array of the data.
    weights: a module like those that `make` makes, or a nested dict, that training starts from.

    Dropout, batch normalisation and a module's own random streams behave as `from_linen` says.
    Raises UserError for parts that the module lacks.
    """
    first: dict[str, int] = {}  # place of each attribute, which a traced module forgets

    def init(key: jax.Array) -> Params:
        module = make(nnx.Rngs(key))
        first.update({name: place for place, name in enumerate(vars(module))})
        return tree_of(module)

    shapes = jax.eval_shape(init, jax.random.key(0))
    state = tuple(name for name in (_STATE,) if name in shapes)
    parameters = {name: part for name, part in shapes.items() if name not in state}
    head = head or parts.last_part(parameters, first)
    parts.check(list(flatten(parameters)), stem, blocks, head)
    rebuild = rebuilder(make)
    called = call or parts.usual_call(type(nnx.eval_shape(lambda: make(nnx.Rngs(0)))), example)

    def run(module: nnx.Module, batch: Batch, train: bool, forward_pass: ForwardPass) -> Any:
        module.train() if train else module.eval()
        if forward_pass.keys is not None:
            _reseed(module, forward_pass.keys)
        for path, layer in list(nnx.iter_modules(module)):
            if isinstance(layer, tuple(_ANSWERS)):
                layer.__class__ = _answering(type(layer))
                setattr(layer, _PATH, "/".join(map(str, path)))
        tokens = _running.set(forward_pass), _outside.set(TraceState())
        try:
            return called(module, batch, train)
        finally:
            _running.reset(tokens[0])
            _outside.reset(tokens[1])

    def apply(params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None) -> Any:
        return run(rebuild(params), batch, keys is not None, ForwardPass(dropout, keys))

    def update(
        params: Params, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None, trained: frozenset[str]
    ) -> tuple[Any, dict[str, Any]]:
        live = live_state(task, flatten(params), trained)
        module = rebuild(params)
        outputs = run(module, batch, True, ForwardPass(dropout, keys, live, batch.get("weight")))
        leaves = flatten(tree_of(module))
        return outputs, {path: leaves[path] for path in live}

    objective = objective or classification()
    task = Task(
        init, apply, objective.loss, objective.metrics, stem, blocks, head,
        update=update if state else None, state=state,
        weights=parts.flat_weights(tree_of(weights) if isinstance(weights, nnx.Module) else weights),
    )  # fmt: skip
    return task


def _parts(module: nnx.Module) -> tuple[Any, ...]:
    """Returns (graph, parameters, state, all else) of a module."""
    return tuple(nnx.split(module, nnx.Param, nnx.BatchStat, ...))


def tree_of(module: nnx.Module) -> Params:
    """Returns parameters and state of a module as nested dicts with text for keys."""
    _, params, state, _ = _parts(module)
    tree, averages = (_renamed(nnx.to_pure_dict(part), str) for part in (params, state))
    parts.check_names(tree, {_STATE: averages} if averages else {})
    return {**tree, _STATE: averages} if averages else tree


def rebuilder(make: Callable[[nnx.Rngs], nnx.Module]) -> Callable[[Params], nnx.Module]:
    """Returns what makes a module with the leaves of `tree_of`."""
    graph, params, state, _ = _parts(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    # Counters of random streams and what else a user's module holds: it stays as it was built.
    rest = jax.jit(lambda: _parts(make(nnx.Rngs(0)))[3])()

    def rebuild(tree: Params) -> nnx.Module:
        parameters = {name: part for name, part in tree.items() if name != _STATE}
        filled = [_filled(*each) for each in ((params, parameters), (state, tree.get(_STATE, {})))]
        return nnx.merge(graph, *filled, jax.tree.map(lambda leaf: leaf, rest))

    return rebuild


def _filled(abstract: nnx.State, tree: Params) -> nnx.State:
    """Returns a state like `abstract` that holds the leaves of `tree`."""
    names = {str(key): key for path in traverse_util.flatten_dict(nnx.to_pure_dict(abstract)) for key in path}
    state = jax.tree.map(lambda leaf: leaf, abstract)
    nnx.replace_by_pure_dict(state, _renamed(tree, names.__getitem__))
    return state


def _renamed(tree: Mapping[Any, Any], rename: Callable[[Any], Any]) -> dict[Any, Any]:
    """Returns nested dicts with every key renamed."""
    return {rename(key): _renamed(part, rename) if isinstance(part, Mapping) else part for key, part in tree.items()}


def _reseed(module: nnx.Module, keys: jax.Array) -> None:
    """Lets the random streams of a module that trains depend on the examples' `keys`, but for those of dropout layers.

    These stay as they were built: they tell where a layer is.
    """
    nodes = [node for _, node in nnx.iter_graph(module)]
    places = {id(node.rngs) for node in nodes if isinstance(node, nnx.Dropout)}
    for node in nodes:
        if isinstance(node, nnx.RngStream) and id(node) not in places:
            node.key[...] = batch_key(keys, node.key[...])


def _loop_place(layer: Any) -> Place:
    """Returns where in the loops that hold it a dropout layer is, by the stream that it was built with.

    Raises UserError where it has none, or where a transformation that NNX does not know holds it.
    """
    if _outside.get().is_valid():
        return 0
    allowed = "NNX's own, such as nnx.scan, of a layer that is built with rngs"
    if layer.rngs is None:
        raise refusal(getattr(layer, _PATH), "and has no random stream", allowed)
    try:
        return hashed(layer.rngs())
    except TraceContextError:
        raise refusal(getattr(layer, _PATH), "of JAX's own, whose passes would draw the same", allowed) from None


def _dropout(base: type, layer: Any, x: jax.Array, *, deterministic: bool | None = None, rngs: Any = None) -> jax.Array:
    """Drops at the trial's rate, by the random keys of the examples."""
    del base, rngs
    off, run, path = (
        layer.deterministic if deterministic is None else deterministic,
        _running.get(),
        getattr(layer, _PATH),
    )
    if off or not run.drops(path, layer.rate):
        return x
    return run.drop(path, x, layer.rate, layer.broadcast_dims, _loop_place(layer))


def _batch_norm(base: type, layer: Any, x: jax.Array, switch: bool | None = None, *, mask: Any = None, **_: Any) -> Any:
    """Uses the batch where it trains, else the running averages, whatever its own switch says."""
    del switch
    live = _running.get().is_live(getattr(layer, _PATH))
    counted = _running.get().counted(x, mask) if live else None
    return base.__call__(layer, x, use_running_average=not live, mask=counted)


def _linear(base: type, layer: Any, x: jax.Array, *arguments: Any, **keywords: Any) -> jax.Array:
    """Lets the hooks of dense layers see what it gives."""
    return dense_output(getattr(layer, _PATH), x, base.__call__(layer, x, *arguments, **keywords))


_ANSWERS = {nnx.Dropout: _dropout, nnx.BatchNorm: _batch_norm, nnx.Linear: _linear}


@functools.cache
def _answering(base: type) -> type:
    """Returns a class like `base` whose instances ask the pass that runs them."""
    answer: Callable[..., Any] = next(answer for kind, answer in _ANSWERS.items() if issubclass(base, kind))

    def call(layer: Any, x: jax.Array, *arguments: Any, **keywords: Any) -> Any:
        return answer(base, layer, x, *arguments, **keywords)

    # One base, since an object can only change to a class that lies like its own.
    return type(base.__name__, (base,), {"__call__": call})
