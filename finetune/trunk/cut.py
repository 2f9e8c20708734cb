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

from finetune.errors import UserError
from finetune.jaxpr.axis_rules import Axis, Mixed
from finetune.jaxpr.batch_axis import SIZES, axes_of
from finetune.jaxpr.program import Program, alike, evaluate, merged, names, needed, trace
from finetune.jaxpr.value_kind import Kind, cheapest_features, is_key, kinds_of
from finetune.member.params import Leaves
from finetune.member.step import Forward, seed_key
from finetune.member.task import Batch

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
    mixes: None, or why examples influence each other somewhere in the whole pass.
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
        self._forward, self._dtype, self._has_keys = forward, dtype, keys
        self._shapes = dict(params), dict(frozen), dict(example), dropout, jax.eval_shape(seed_key, 0, 0)
        self._read()
        weight = self._numbered(self._two)[2].get("weight")
        of_arguments = [_KINDS[path[0].idx] for path in self._paths]
        self._kinds, self.refused = kinds_of(self._two, self._axes, of_arguments, (weight,))
        # What is computed twice is one value, but for the tail: two derivatives may have one name.
        first, given = dict[str, int](), {*self._two.inputs, *self._two.literals}
        self._same = [
            value if self._kinds[value] == Kind.TAIL or value in given else first.setdefault(name, value)
            for value, name in enumerate(self._names)
        ]
        self._program = merged(self._two, self._same)
        live = needed(self._program, (), self._program.outputs)
        read = {*self._program.outputs, *(value for equation in live for value in equation.inputs)}
        mixed = (axis for value in sorted(read) if isinstance(axis := self._axes[value], Mixed))
        self.mixes = next((axis.reason for axis in mixed), None)
        self._choose()
        self.key = hashlib.sha256("\n".join(self.features).encode()).hexdigest()

    def _read(self) -> None:
        """Traces the program, names its values, and finds the examples in them."""
        self._paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(self._arguments(SIZES[0]))]
        self._two, three = (trace(self._forward, *self._arguments(size))[0] for size in SIZES)
        self._traced: dict[int, tuple[Program, Any]] = {}
        self._alike = alike(self._two, three)
        self._axes: list[Axis] = [Mixed("the program changes with the batch size")] * len(self._two.avals)
        self._names = [""] * len(self._axes)
        inputs = [jax.tree_util.keystr(path) for path in self._paths]
        of_two = names(self._two, inputs)
        self.outputs = [of_two[value] for value in self._two.outputs]
        if self._alike:
            # By both programs: what is as long as a batch of two by chance is not in that of three.
            of_both = zip(of_two, names(three, inputs), strict=True)
            self._names = [two[:32] + other[:32] for two, other in of_both]
            self._axes = self._axes_at(three, SIZES[1])

    def _axes_at(self, program: Program, size: int) -> list[Axis]:
        return axes_of(self._two, program, [_AXES[path[0].idx] for path in self._paths], size)

    def _choose(self) -> None:
        """Settles what the tail takes: features, constants, frozen leaves, and arrays of the batch."""
        program = self._program
        given = {*program.inputs, *program.literals}
        constants = {value for value, kind in enumerate(self._kinds) if kind == Kind.CONSTANT} - given
        constants -= {value for value in constants if is_key(program, value)}
        features = cheapest_features(program, self._kinds, self._bytes_per_example)
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
        other._shapes = params, frozen, example | dict(shapes), *rest
        other._read()
        if not (self._alike and other._alike and alike(other._two, self._two)):
            return None
        other._program = merged(other._two, self._same)
        alone = all(other._names[value] == other._names[same] for value, same in enumerate(self._same))
        alone = alone and all(other._axes[value] == self._axes[value] for value in self._features.values())
        alone = alone and all(other._one_example(self._features[name]) == one for name, one in self.features.items())
        return other if alone else None

    def refuses(self, size: int) -> str | None:
        """Returns why batches of `size` examples cannot be cut, None if they can."""
        if size == 1 and self.mixes is None:
            return None
        try:
            self._trace(size)
        except UserError as error:
            return str(error).partition(", allowed: ")[0]
        return None

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
        given = {*program.inputs, *program.literals}
        _, leaves, arrays, _, _ = self._numbered(program)
        known = {value: done[name] for value, name in enumerate(self._names) if name in done and value not in given}
        known |= {value: frozen[path] for path, value in leaves.items() if path in frozen}
        known |= {value: batch[name] for name, value in arrays.items() if name in batch}
        values = evaluate(program, known, self._features.values())
        done.update((self._names[value], array) for value, array in values.items() if value not in given)
        return {name: self._pack(values[value], value, size) for name, value in self._features.items()}

    def tail(
        self, params: Leaves, constants: Leaves, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None
    ) -> Any:
        """Returns the outputs of the forward pass; `batch` holds the features and the arrays that the tail reads."""
        size = _batch_size(batch)
        if size == 1 and self.mixes is None:
            outputs = self.tail(params, constants, _twice(batch), dropout, None if keys is None else _twice(keys))
            leaves, structure = jax.tree.flatten(outputs)
            axes = [self._axes[value] for value in self._program.outputs]
            return jax.tree.unflatten(structure, list(map(_first_half, leaves, axes)))
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
            if self._differs(program, size):
                raise UserError(
                    f"a batch of {size} examples runs another program than one of {SIZES[0]}, "
                    "allowed: a model that computes every batch alike, or trunk.mode none"
                )
            self._traced[size] = (merged(program, self._same) if self._alike else program), shapes
        return self._traced[size]

    def _differs(self, program: Program, size: int) -> bool:
        """Says whether a batch of `size` is computed in another way than those that the program was cut by."""
        if size in SIZES or not self._alike:
            return False
        if not alike(self._two, program):
            return True
        found = zip(self._kinds, self._axes, self._axes_at(program, size), strict=True)
        return any(kind != Kind.TAIL and axis != other for kind, axis, other in found)

    def _one_example(self, value: int) -> jax.ShapeDtypeStruct:
        """Returns the shape of one example's part of a value; several entries behind each example stay an axis.

        What is the same for all examples, such as the counter of a loop over them, each of them has whole.
        """
        aval, axis = self._program.avals[value], self._axis(value)
        dtype = self._dtype if aval.dtype == np.float32 else aval.dtype
        if axis is None:
            return jax.ShapeDtypeStruct(aval.shape, dtype)
        entries = aval.shape[axis] // SIZES[0]
        inner = () if entries == 1 else (entries,)
        return jax.ShapeDtypeStruct((*aval.shape[:axis], *inner, *aval.shape[axis + 1 :]), dtype)

    def _axis(self, value: int) -> int | None:
        axis = self._axes[value]
        assert not isinstance(axis, Mixed)  # in the trunk nothing is
        return axis

    def _bytes_per_example(self, value: int) -> int:
        one = self._one_example(value)
        return one.size * one.dtype.itemsize

    def _pack(self, array: jax.Array, value: int, size: int) -> jax.Array:
        """Returns a value with the axis of examples put first and apart."""
        axis, shape, one = self._axis(value), array.shape, self._one_example(value)
        if axis is None:
            return jnp.broadcast_to(array, (size, *shape)).astype(one.dtype)
        apart = array.reshape(*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :])
        return jnp.moveaxis(apart, axis, 0).reshape(size, *one.shape).astype(one.dtype)

    def _unpack(self, packed: jax.Array, value: int, size: int) -> jax.Array:
        axis, aval = self._axis(value), self._trace(size)[0].avals[value]
        if axis is None:
            return packed[0].astype(aval.dtype)
        shape = aval.shape
        apart = packed.astype(aval.dtype).reshape(size, *shape[:axis], shape[axis] // size, *shape[axis + 1 :])
        return jnp.moveaxis(apart, 0, axis).reshape(shape)


def _batch_size(batch: Batch) -> int:
    return next(iter(batch.values())).shape[0]


def _twice(arrays: Any) -> Any:
    """Returns a batch of one example as two: JAX leaves broadcasts to one example out, which makes another program."""
    return jax.tree.map(lambda array: jnp.concatenate([array, array]), arrays)


def _first_half(array: jax.Array, axis: Axis) -> jax.Array:
    """Returns the part of the first of two examples."""
    return jax.lax.slice_in_dim(array, 0, array.shape[axis] // 2, axis=axis) if isinstance(axis, int) else array
