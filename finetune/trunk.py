"""The split of a model's program into what every trial shares and what each trial has for itself.

A forward pass is a list of equations. An equation belongs to

    the constants  if it depends on frozen parameters alone: computed once,
    the trunk      if it also depends on the example, and on that one example alone: computed once per example,
    the tail       if it depends on a trainable parameter, a hyperparameter, a random key, or another example.

Values that the trunk hands to the tail are features. Which ones is a minimum cut: of all ways to compute what the tail
needs, the one with the fewest bytes per example, where the tail may repeat what is cheap but no matrix product,
convolution or lookup. Of two ways with as many bytes the one that repeats less is taken.

The tail is again a `Forward`: constants take the place of frozen leaves, and features join the arrays of the batch.
Nothing is declared by the user, and no equation is changed: trunk and tail evaluate the model's own.
"""

import hashlib
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

import jax
import jax.numpy as jnp

from finetune.batch_axis import ELEMENTWISE, REDUCTIONS, SIZES, Mixed, axes_of
from finetune.errors import UserError
from finetune.jaxpr import Equation, Program, alike, bodies, evaluate, names, needed, trace
from finetune.mincut import smallest_cut
from finetune.params import Leaves
from finetune.step import Forward, seed_key
from finetune.task import Batch

Shapes = Mapping[str, jax.ShapeDtypeStruct]

# Besides elementwise functions and reductions, what the tail may repeat: moving and copying.
_CHEAP = (
    ELEMENTWISE
    | REDUCTIONS
    | set("broadcast_in_dim concatenate iota pad reshape rev slice split squeeze transpose".split())
)
_CUSTOM = ("custom_jvp_call", "custom_vjp_call")


class Kind(IntEnum):
    """What an equation or a value belongs to; it belongs to the largest of its inputs' kinds."""

    CONSTANT = 0
    TRUNK = 1
    TAIL = 2


# Of the arguments of a `Forward`: trainable leaves, frozen leaves, batch, dropout, keys.
_ARGUMENT_KINDS = (Kind.TAIL, Kind.CONSTANT, Kind.TRUNK, Kind.TAIL, Kind.TAIL)


class Cut:
    """A forward pass, cut in two. Works at any batch size, under jit, vmap and grad.

    features: name -> shape and dtype of ONE example's feature. The name is a hash of how the feature is computed, so
        that cuts of other groups and other runs know it again; it does not depend on the values of weights.
    reads: names of the arrays of the batch that the tail still reads.
    refused: None, or why something that is frozen could not join the trunk: examples influence each other there.
    key: a hash of the program that computes all features.
    """

    def __init__(
        self, forward: Forward, params: Shapes, frozen: Shapes, example: Shapes, dropout: jax.ShapeDtypeStruct,
        keys: bool,
    ):  # fmt: skip
        self._forward, self._example = forward, dict(example)
        self._arguments = (dict(params), dict(frozen), dropout, keys)
        self._programs: dict[int, tuple[Program, Any]] = {}
        two, three = (self._trace(size) for size in SIZES)
        leaves = jax.tree_util.tree_flatten_with_path(self._structs(SIZES[0]))[0]
        self._names = names(two, [jax.tree_util.keystr(path) for path, _ in leaves])
        arguments = [path[0].idx for path, _ in leaves]
        entered = [0 if argument in (2, 4) else None for argument in arguments]
        axes = axes_of(two, three, entered) if alike(two, three) else _unlike(two)
        self._axes: dict[int, Any] = dict(enumerate(axes))
        self.refused: str | None = None
        self._kinds = self._mark(two, [_ARGUMENT_KINDS[argument] for argument in arguments])
        self._choose(two)

    def _choose(self, two: Program) -> None:
        """Settles which values cross: features, computed constants, frozen leaves and arrays of the batch."""
        raw = set(two.inputs) | set(two.literals)
        constant = {value for value, kind in self._kinds.items() if kind == Kind.CONSTANT}
        features = self._cut(two, raw)
        repeated = needed(two, raw | constant | features, two.outputs)
        read = {value for equation in repeated for value in equation.inputs} | set(two.outputs)
        self._features = {f"feature:{self._names[value]}": value for value in sorted(features)}
        self.features = {name: self._of_one(two, value) for name, value in self._features.items()}
        self._constants = {f"constant:{self._names[value]}": value for value in sorted((read & constant) - raw)}
        _, frozen, batch, _, _ = self._numbers(two)
        self._leaves = {path: value for path, value in frozen.items() if value in read}
        self._raw = {name: value for name, value in batch.items() if value in read}
        self.reads = frozenset(self._raw)
        self.key = hashlib.sha256("\n".join(sorted(self.features)).encode()).hexdigest()

    def constants(self, frozen: Leaves) -> Leaves:
        """Returns what the tail takes for frozen leaves: those it reads, and values computed from leaves alone."""
        program, _ = self._trace(SIZES[0])
        _, numbers, *_ = self._numbers(program)

        def compute(frozen: Leaves) -> Leaves:
            known = {value: frozen[path] for path, value in numbers.items()}
            values = evaluate(program, known, self._constants.values())
            return {name: values[value] for name, value in self._constants.items()}

        leaves = {path: frozen[path] for path in self._leaves}
        return leaves | (jax.jit(compute)({path: frozen[path] for path in numbers}) if self._constants else {})

    def trunk(self, frozen: Leaves, batch: Batch, done: dict[str, Any] | None = None) -> dict[str, jax.Array]:
        """Returns the features {name: [B, ...]} of a batch.

        done: values by name that another cut's trunk has computed from the same arguments; this one's are added.
        """
        size = _batch_size(batch)
        if size == 1:
            return {name: value[:1] for name, value in self.trunk(frozen, _twice(batch), done).items()}
        program, _ = self._trace(size)
        done = {} if done is None else done
        _, leaves, arrays, *_ = self._numbers(program)
        known = {value: done[name] for value, name in enumerate(self._names) if name in done}
        known |= {value: frozen[path] for path, value in leaves.items()}
        known |= {value: batch[name] for name, value in arrays.items() if name in batch}
        values = evaluate(program, known, self._features.values())
        done.update((self._names[value], array) for value, array in values.items())
        return {
            name: self._pack(values[value], value, (size, *self.features[name].shape))
            for name, value in self._features.items()
        }

    def tail(
        self, params: Leaves, constants: Leaves, batch: Batch, dropout: jax.Array | float, keys: jax.Array | None
    ) -> Any:
        """Returns the outputs of the forward pass; `batch` holds the features and the arrays that the tail `reads`."""
        size = _batch_size(batch)
        if size == 1:
            outputs = self.tail(params, constants, _twice(batch), dropout, None if keys is None else _twice(keys))
            return jax.tree.map(lambda output: output[:1], outputs)
        program, shapes = self._trace(size)
        trained, _, _, rate, key = self._numbers(program)
        known = {value: params[path] for path, value in trained.items()}
        known |= {value: constants[name] for name, value in (self._leaves | self._constants).items()}
        known |= {value: batch[name] for name, value in self._raw.items()}
        for name, value in self._features.items():
            known[value] = self._unpack(batch[name], value, program.avals[value].shape)
        known[rate] = jnp.asarray(dropout, program.avals[rate].dtype)
        if key is not None:
            known[key] = keys
        values = evaluate(program, known, program.outputs)
        return jax.tree.unflatten(jax.tree.structure(shapes), [values[value] for value in program.outputs])

    def _structs(self, size: int) -> tuple[Any, ...]:
        params, frozen, dropout, keys = self._arguments
        batch = {name: jax.ShapeDtypeStruct((size, *one.shape), one.dtype) for name, one in self._example.items()}
        key = jax.ShapeDtypeStruct((size,), jax.eval_shape(seed_key, 0, 0).dtype) if keys else None
        return params, frozen, batch, dropout, key

    def _numbers(self, program: Program) -> tuple[Any, ...]:
        """Returns the numbers of the program's inputs in the place of the arguments of a `Forward`."""
        return jax.tree.unflatten(jax.tree.structure(self._structs(SIZES[0])), program.inputs)

    def _trace(self, size: int) -> tuple[Program, Any]:
        """Returns the program at a batch size; it numbers values as those at other sizes do."""
        if size not in self._programs:
            program, shapes = trace(self._forward, *self._structs(size))
            if size not in SIZES and not alike(program, self._programs[SIZES[0]][0]):
                raise UserError(f"the model's program for a batch of {size} differs from that of {SIZES[0]} examples")
            self._programs[size] = program, shapes
        return self._programs[size]

    def _mark(self, program: Program, inputs: list[Kind]) -> dict[int, Kind]:
        """Returns the kind of every value, and notes the first reason for which a frozen one is in the tail."""
        kinds = dict(zip(program.inputs, inputs, strict=True)) | dict.fromkeys(program.literals, Kind.CONSTANT)
        live = {id(equation.origin) for equation in needed(program, (), program.outputs)}
        for equation in program.equations:
            kind = max((kinds[value] for value in equation.inputs), default=Kind.CONSTANT)
            axes = [self._axes[value] for value in equation.outputs]
            mixed = next((axis for axis in axes if isinstance(axis, Mixed)), None)
            if mixed is not None:
                if kind == Kind.TRUNK or (kind == Kind.TAIL and self._frozen_below(equation, kinds)):
                    self.refused = self.refused or mixed.reason
                kind = Kind.TAIL
            elif equation.origin.effects:
                kind = Kind.TAIL
            elif kind == Kind.CONSTANT and any(axis is not None for axis in axes):
                kind = Kind.TRUNK  # a copy for each example
            kinds.update(dict.fromkeys(equation.outputs, kind))
        return kinds
