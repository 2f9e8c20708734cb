"""The split of a model's program into what all trials share and what each has for itself.

A forward pass is a list of equations. An equation belongs to

    the constants  if it depends on frozen parameters alone: computed once,
    the trunk      if it also depends on the example, and on that one example alone: computed once per example,
    the tail       if it depends on a trainable parameter, a hyperparameter, a random key, or other examples.

Values that the trunk hands to the tail are features. Which ones is a minimum cut: of all ways to give the tail what it
needs, the one with the fewest bytes per example, where the tail may repeat what is cheap but no matrix product,
convolution or lookup. Of two ways with as many bytes it is the one that repeats less.

The tail is again a `Forward`: constants take the place of frozen leaves, and features join the arrays of the batch.
The user declares nothing, and no equation is rewritten: both parts evaluate the model's own.
"""

import copy
import hashlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune.batch_axis import ELEMENTWISE, REDUCTIONS, SIZES, Axis, Mixed, axes_of
from finetune.errors import UserError
from finetune.jaxpr import Equation, Program, alike, bodies, evaluate, names, needed, trace
from finetune.mincut import smallest_cut
from finetune.params import Leaves
from finetune.step import Forward, seed_key
from finetune.task import Batch

Shapes = Mapping[str, jax.ShapeDtypeStruct]
Features = dict[str, jax.Array]  # name -> [B, ...]

# What the tail may repeat: computing entry by entry, reducing, moving, copying.
_MOVES = "broadcast_in_dim concatenate iota pad reshape rev slice split squeeze transpose"
_CHEAP = ELEMENTWISE | REDUCTIONS | frozenset(_MOVES.split())


class Kind(IntEnum):
    """What a value belongs to: the largest of the kinds of all that it is computed from."""

    CONSTANT = 0
    TRUNK = 1
    TAIL = 2


# Of the arguments of a `Forward`: trainable leaves, frozen leaves, batch, dropout, keys.
_KINDS = (Kind.TAIL, Kind.CONSTANT, Kind.TRUNK, Kind.TAIL, Kind.TAIL)
_AXES = (None, None, 0, None, 0)


class Cut:
    """A forward pass cut in two, for batches of any size; both parts may be jitted, vmapped and differentiated.

    features: name -> shape and dtype of the feature of ONE example. The name is a hash of the program that computes
        it, so cuts of other groups and other processes know it again. It says nothing of the values of weights.
    reads: names of the arrays of a batch, besides the features, that the tail reads.
    needs: paths of the frozen leaves, and names of the arrays of a batch, that the trunk reads.
    refused: None, or why something that is frozen is not in the trunk: there, examples influence each other. The trunk
        ends before it, so that the features of an example never depend on other examples.
    key: a hash of the program that computes all features.
    outputs: hashes of the programs that compute the outputs of the whole forward pass.
    """

    def __init__(
        self, forward: Forward, params: Shapes, frozen: Shapes, example: Shapes, dropout: jax.ShapeDtypeStruct,
        keys: bool, dtype: str = "float32",
    ):  # fmt: skip
        """Cuts `forward`, given its arguments' shapes, of ONE example without batch axis, and whether it has keys.

        dtype: of the features that are float32 in the program.
        """
        self._forward, self._traced, self._dtype = forward, dict[int, tuple[Program, Any]](), dtype
        self._shapes = dict(params), dict(frozen), dict(example), dropout, jax.eval_shape(seed_key, 0, 0)
        self._has_keys = keys
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(self._arguments(SIZES[0]))]
        self._program, other = self._sizes = tuple(self._trace(size)[0] for size in SIZES)
        self._alike = alike(self._program, other)
        self._names = names(self._program, [jax.tree_util.keystr(path) for path in paths])
        self.outputs = [self._names[value] for value in self._program.outputs]
        self._axes: list[Axis] = [Mixed("the program changes with the batch size")] * len(self._names)
        if self._alike:
            self._axes = axes_of(self._program, other, [_AXES[path[0].idx] for path in paths])
        self._kinds, self.refused = _mark(self._program, self._axes, [_KINDS[path[0].idx] for path in paths])
        self._choose()
        self.key = hashlib.sha256("\n".join(self.features).encode()).hexdigest()

    def _choose(self) -> None:
        """Settles what the tail takes: features, constants, frozen leaves, and arrays of the batch."""
        program = self._program
        given = {*program.inputs, *program.literals}
        constants = {value for value, kind in enumerate(self._kinds) if kind == Kind.CONSTANT} - given
        features = _cheapest_features(program, self._kinds, self._bytes_per_example)
        tail = needed(program, given | constants | features, program.outputs)
        read = {*program.outputs, *(value for equation in tail for value in equation.inputs)}
        _, frozen, batch, _, _ = self._numbered(program)
        self._features = {f"feature:{self._dtype}:{self._names[value]}": value for value in features}
        self._features = dict(sorted(self._features.items()))
        self._computed = {f"constant:{self._names[value]}": value for value in sorted(constants & read)}
        self._leaves = {path: value for path, value in frozen.items() if value in read or not self._alike}
        self._arrays = {name: value for name, value in batch.items() if value in read or not self._alike}
        self.features = {name: self._one_example(value) for name, value in self._features.items()}
        self.reads = frozenset(self._arrays)
        trunk = needed(program, given | constants, features)
        inputs = {value for equation in trunk for value in equation.inputs}
        inputs |= {value for each in needed(program, given, inputs & constants) for value in each.inputs}
        self.needs = tuple(
            frozenset(name for name, value in each.items() if value in inputs) for each in (frozen, batch)
        )

    def resized(self, shapes: Shapes) -> "Cut | None":
        """Returns the trunk for other `shapes` of some arrays; None unless it runs alike and its features stay."""
        other, (params, frozen, example, *rest) = copy.copy(self), self._shapes
        other._shapes, other._traced = (params, frozen, example | dict(shapes), *rest), {}
        other._program, three = (other._trace(size)[0] for size in SIZES)
        if not (self._alike and alike(other._program, self._program) and alike(three, self._program)):
            return None
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(other._arguments(SIZES[0]))]
        other._names = names(other._program, [jax.tree_util.keystr(path) for path in paths])
        other._axes = axes_of(other._program, three, [_AXES[path[0].idx] for path in paths])
        same = all(other._axes[value] == self._axes[value] for value in self._features.values())
        same = same and all(other._one_example(self._features[name]) == one for name, one in self.features.items())
        return other if same else None

    def constants(self, frozen: Leaves) -> Leaves:
        """Returns what the tail takes for frozen leaves: those it reads, and what is computed from leaves alone."""
        numbers = self._numbered(self._program)[1]

        def compute(frozen: Leaves) -> Leaves:
            known = {value: frozen[path] for path, value in numbers.items() if path in frozen}
            values = evaluate(self._program, known, self._computed.values())
            return {name: values[value] for name, value in self._computed.items()}

        return {path: frozen[path] for path in self._leaves} | jax.jit(compute)(frozen)

    def trunk(self, frozen: Leaves, batch: Batch, done: dict[str, Any] | None = None) -> Features:
        """Returns the features of a batch.

        done: what trunks of other cuts have computed from these arguments, by name; what this one computes is added.
        """
        size = _batch_size(batch)
        if size == 1:
            return {name: both[:1] for name, both in self.trunk(frozen, _twice(batch), done).items()}
        program, _ = self._trace(size)
        done = {} if done is None else done
        _, leaves, arrays, _, _ = self._numbered(program)
        known = {value: done[name] for value, name in enumerate(self._names) if name in done}
        known |= {value: frozen[path] for path, value in leaves.items() if path in frozen}
        known |= {value: batch[name] for name, value in arrays.items() if name in batch}
        values = evaluate(program, known, self._features.values())
        done.update((self._names[value], array) for value, array in values.items())
        return {name: self._pack(values[value], value, size) for name, value in self._features.items()}

    def tail(
        self, params: Leaves, constants: Leaves, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None
    ) -> Any:
        """Returns the outputs of the forward pass; `batch` holds the features and the arrays that the tail reads."""
        size = _batch_size(batch)
        if size == 1 and self._alike:
            outputs = self.tail(params, constants, _twice(batch), dropout, None if keys is None else _twice(keys))
            leaves, structure = jax.tree.flatten(outputs)
            of_examples = zip(
                *([each.avals[value].shape for value in each.outputs] for each in self._sizes), strict=True
            )
            one = [
                leaf if small == large else leaf[:1] for leaf, (small, large) in zip(leaves, of_examples, strict=True)
            ]
            return jax.tree.unflatten(structure, one)
        program, shapes = self._trace(size)
        leaves, _, _, rate, key = self._numbered(program)
        known = {value: params[path] for path, value in leaves.items()}
        known |= {value: constants[name] for name, value in (self._leaves | self._computed).items()}
        known |= {value: batch[name] for name, value in self._arrays.items()}
        known |= {value: self._unpack(batch[name], value, size) for name, value in self._features.items()}
        known |= {rate: jnp.asarray(dropout, program.avals[rate].dtype)} | ({key: keys} if self._has_keys else {})
        values = evaluate(program, known, program.outputs)
        return jax.tree.unflatten(jax.tree.structure(shapes), [values[value] for value in program.outputs])

    def _arguments(self, size: int) -> tuple[Any, ...]:
        params, frozen, example, dropout, key = self._shapes
        batch, keys = jax.tree.map(
            lambda one: jax.ShapeDtypeStruct((size, *one.shape), one.dtype), (example, key if self._has_keys else None)
        )
        return params, frozen, batch, dropout, keys

    def _numbered(self, program: Program) -> tuple[Any, ...]:
        """Returns the numbers of a program's inputs, arranged as the arguments of a `Forward`."""
        return jax.tree.unflatten(jax.tree.structure(self._arguments(SIZES[0])), program.inputs)

    def _trace(self, size: int) -> tuple[Program, Any]:
        """Returns (program, output shapes) for a batch size; values have the same numbers for every size."""
        if size not in self._traced:
            program, shapes = trace(self._forward, *self._arguments(size))
            if size not in SIZES and self._alike and not alike(program, self._program):
                raise UserError(
                    f"a batch of {size} examples runs another program than one of {SIZES[0]}, "
                    "allowed: a model that computes every batch alike, or trunk.mode none"
                )
            self._traced[size] = program, shapes
        return self._traced[size]

    def _one_example(self, value: int) -> jax.ShapeDtypeStruct:
        """Returns the shape of one example's part of a value; several entries behind each example stay an axis."""
        aval, axis = self._program.avals[value], self._axis(value)
        entries = aval.shape[axis] // SIZES[0]
        inner = () if entries == 1 else (entries,)
        dtype = self._dtype if aval.dtype == np.float32 else aval.dtype
        return jax.ShapeDtypeStruct((*aval.shape[:axis], *inner, *aval.shape[axis + 1 :]), dtype)

    def _axis(self, value: int) -> int:
        axis = self._axes[value]
        assert isinstance(axis, int)  # of whatever is of the trunk
        return axis

    def _bytes_per_example(self, value: int) -> int:
        one = self._one_example(value)
        return one.size * one.dtype.itemsize

    def _pack(self, array: jax.Array, value: int, size: int) -> jax.Array:
        """Returns a value with the axis of examples put first and apart."""
        axis, shape = self._axis(value), array.shape
        apart = array.reshape(*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :])
        one = self._one_example(value)
        return jnp.moveaxis(apart, axis, 0).reshape(size, *one.shape).astype(one.dtype)

    def _unpack(self, packed: jax.Array, value: int, size: int) -> jax.Array:
        axis, aval = self._axis(value), self._trace(size)[0].avals[value]
        shape = aval.shape
        apart = packed.astype(aval.dtype).reshape(size, *shape[:axis], shape[axis] // size, *shape[axis + 1 :])
        return jnp.moveaxis(apart, 0, axis).reshape(shape)


def _mark(program: Program, axes: list[Axis], inputs: list[Kind]) -> tuple[list[Kind], str | None]:
    """Returns the kind of every value, and the first reason for which a frozen one cannot join the trunk."""
    kinds = [Kind.CONSTANT] * len(program.avals)
    for value, kind in zip(program.inputs, inputs, strict=True):
        kinds[value] = kind
    depends, refused = list(kinds), None  # kinds as they would be if no examples were mixed
    live = {equation.outputs for equation in needed(program, (), program.outputs)}
    for equation in program.equations:
        depend = max((depends[value] for value in equation.inputs), default=Kind.CONSTANT)
        kind = max((kinds[value] for value in equation.inputs), default=Kind.CONSTANT)
        mixed = next((axis for value in equation.outputs if isinstance(axis := axes[value], Mixed)), None)
        if mixed and depend == Kind.TRUNK and equation.outputs in live:
            refused = refused or mixed.reason
        if mixed or equation.origin.effects:
            kind = Kind.TAIL
        elif kind == Kind.CONSTANT and any(axes[value] is not None for value in equation.outputs):
            kind = Kind.TRUNK  # a copy of a constant for each example
        for value in equation.outputs:
            depends[value], kinds[value] = depend, kind
    return kinds, refused


def _cheapest_features(program: Program, kinds: list[Kind], bytes_per_example: Callable[[int], int]) -> set[int]:
    """Returns the values of the trunk with the fewest bytes from which the tail can go on.

    Paths lead from what the tail reads, through equations that it may repeat, to what only the trunk may compute. Where
    they end at arrays of the batch there is nothing to hand over.
    """
    edges: dict[int, list[int]] = {}
    costly: set[int] = set()
    start = {value for value in program.outputs if kinds[value] == Kind.TRUNK}
    for equation in needed(program, (), program.outputs):
        inputs = [value for value in equation.inputs if kinds[value] == Kind.TRUNK]
        if kinds[equation.outputs[0]] == Kind.TAIL:
            start.update(inputs)
        elif kinds[equation.outputs[0]] == Kind.TRUNK:
            edges.update(dict.fromkeys(equation.outputs, inputs))
            costly.update(() if _is_cheap(equation) else equation.outputs)
    weight = {value: bytes_per_example(value) for value in edges}
    cheap_edges = {value: inputs for value, inputs in edges.items() if value not in costly}
    return smallest_cut(start, cheap_edges, costly, weight)


def _is_cheap(equation: Equation) -> bool:
    name = equation.primitive.name
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return all(_is_cheap(inner) for body in bodies(equation) for inner in body.equations)
    return name in _CHEAP


def _batch_size(batch: Batch) -> int:
    return next(iter(batch.values())).shape[0]


def _twice(arrays: Any) -> Any:
    """Returns a batch of one example as two: JAX leaves broadcasts to one example out, which makes another program."""
    return jax.tree.map(lambda array: jnp.concatenate([array, array]), arrays)
