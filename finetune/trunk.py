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
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from finetune.batch_axis import SIZES, Axis, Mixed, axes_of
from finetune.errors import UserError
from finetune.jaxpr import Program, alike, evaluate, names, needed, trace
from finetune.marking import Kind, cheapest_features, mark
from finetune.params import Leaves
from finetune.step import Forward, seed_key
from finetune.task import Batch

Shapes = Mapping[str, jax.ShapeDtypeStruct]
Features = dict[str, jax.Array]  # name -> [B, ...]

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
        self._kinds, self.refused = mark(self._program, self._axes, [_KINDS[path[0].idx] for path in paths])
        self._choose()
        self.key = hashlib.sha256("\n".join(self.features).encode()).hexdigest()

    def _choose(self) -> None:
        """Settles what the tail takes: features, constants, frozen leaves, and arrays of the batch."""
        program = self._program
        given = {*program.inputs, *program.literals}
        constants = {value for value, kind in enumerate(self._kinds) if kind == Kind.CONSTANT} - given
        features = cheapest_features(program, self._kinds, self._axes, self._bytes_per_example)
        tail = needed(program, given | constants | features, program.outputs)
        read = {*program.outputs, *(value for equation in tail for value in equation.inputs)}
        _, frozen, batch, _, _ = self._numbered(program)
        self._features = self._by_name(f"feature:{self._dtype}", features)
        self._computed = self._by_name("constant", constants & read)
        self._leaves = {path: value for path, value in frozen.items() if value in read or not self._alike}
        self._arrays = {name: value for name, value in batch.items() if value in read or not self._alike}
        self.features = {name: self._one_example(value) for name, (value, *_) in self._features.items()}
        self.reads = frozenset(self._arrays)
        trunk = needed(program, given | constants, features)
        inputs = {value for equation in trunk for value in equation.inputs}
        inputs |= {value for each in needed(program, given, inputs & constants) for value in each.inputs}
        self.needs = tuple(
            frozenset(name for name, value in each.items() if value in inputs) for each in (frozen, batch)
        )

    def _by_name(self, kind: str, values: set[int]) -> dict[str, list[int]]:
        """Returns the values of each name: what a layer that is called twice on one input computes is one."""
        found: dict[str, list[int]] = {}
        for value in sorted(values, key=lambda value: (self._names[value], value)):
            found.setdefault(f"{kind}:{self._names[value]}", []).append(value)
        return found

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
        same = all(other._axes[value] == self._axes[value] for each in self._features.values() for value in each)
        same = same and all(other._one_example(self._features[name][0]) == one for name, one in self.features.items())
        return other if same else None

    def constants(self, frozen: Leaves) -> Leaves:
        """Returns what the tail takes for frozen leaves: those it reads, and what is computed from leaves alone."""
        numbers = self._numbered(self._program)[1]

        def compute(frozen: Leaves) -> Leaves:
            known = {value: frozen[path] for path, value in numbers.items() if path in frozen}
            values = evaluate(self._program, known, [value for value, *_ in self._computed.values()])
            return {name: values[value] for name, (value, *_) in self._computed.items()}

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
        values = evaluate(program, known, [value for value, *_ in self._features.values()])
        done.update((self._names[value], array) for value, array in values.items())
        return {name: self._pack(values[value], value, size) for name, (value, *_) in self._features.items()}

    def tail(
        self, params: Leaves, constants: Leaves, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None
    ) -> Any:
        """Returns the outputs of the forward pass; `batch` holds the features and the arrays that the tail reads."""
        size = _batch_size(batch)
        if size == 1 and self._alike and not self._runs_one():
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
        known |= {value: constants[name] for name, value in self._leaves.items()}
        known |= {value: constants[name] for name, each in self._computed.items() for value in each}
        known |= {value: batch[name] for name, value in self._arrays.items()}
        known |= {
            value: self._unpack(batch[name], value, size) for name, each in self._features.items() for value in each
        }
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

    def _runs_one(self) -> bool:
        """Whether the program runs on one example as it is; else it runs on that example twice.

        Raises UserError if twice is not the same: where examples influence each other, as in a sum over the batch.
        """
        alive = (value for equation in needed(self._program, (), self._program.outputs) for value in equation.outputs)
        mixed = next((axis for value in alive if isinstance(axis := self._axes[value], Mixed)), None)
        if mixed is None:
            return False
        if 1 not in self._traced:
            program, shapes = trace(self._forward, *self._arguments(1))
            if alike(program, self._program):
                self._traced[1] = program, shapes
            elif not self._same_of_two():
                raise UserError(
                    f"a batch has one example, and {mixed.reason}, allowed: batches of two or more, or trunk.mode none"
                )
        return 1 in self._traced

    def _same_of_two(self) -> bool:
        """Says whether outputs of one example are those of the same example twice, by numbers drawn at random."""
        random = np.random.default_rng(0)

        def draw(shape: jax.ShapeDtypeStruct) -> Any:
            if jax.dtypes.issubdtype(shape.dtype, jax.dtypes.prng_key):
                return jax.random.key(0, impl="threefry2x32")
            if jnp.issubdtype(shape.dtype, jnp.floating):
                return jnp.asarray(random.normal(size=shape.shape), shape.dtype)
            return jnp.asarray(random.integers(0, 2, shape.shape), shape.dtype)

        with jax.ensure_compile_time_eval():
            params, frozen, batch, dropout, keys = jax.tree.map(draw, self._shapes)
            once = jax.tree.map(lambda one: one[None], (batch, keys if self._has_keys else None))
            rate = jnp.abs(dropout) % 1
            outputs = [
                jax.jit(self._forward)(params, frozen, arrays, rate, drawn) for arrays, drawn in (once, _twice(once))
            ]
            return all(
                np.allclose(one, two[: len(one)] if np.ndim(one) else two, rtol=1e-4, atol=1e-5)
                for one, two in zip(*map(jax.tree.leaves, outputs), strict=True)
            )

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


def _batch_size(batch: Batch) -> int:
    return next(iter(batch.values())).shape[0]


def _twice(arrays: Any) -> Any:
    """Returns a batch of one example as two: JAX leaves broadcasts to one example out, which makes another program."""
    return jax.tree.map(lambda array: jnp.concatenate([array, array]), arrays)
