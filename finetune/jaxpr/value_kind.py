"""What each value of a program belongs to, constants, trunk or tail, and which of them cross from trunk to tail."""

from collections.abc import Callable, Collection, Sequence
from enum import IntEnum

import jax

from finetune.jaxpr.axis_rules import ELEMENTWISE, REDUCTIONS, Axis, Mixed
from finetune.jaxpr.min_cut import smallest_cut
from finetune.jaxpr.program import Equation, Program, bodies, needed

# What the tail may repeat: computing entry by entry, reducing, moving, copying.
_MOVES = "broadcast_in_dim concatenate iota pad reshape rev slice split squeeze stack tile transpose unstack"
_CHEAP = ELEMENTWISE | REDUCTIONS | frozenset(_MOVES.split())


class Kind(IntEnum):
    """What a value belongs to: the largest of the kinds of all that it is computed from."""

    CONSTANT = 0
    TRUNK = 1
    TAIL = 2


def kinds_of(
    program: Program, axes: Sequence[Axis], inputs: Sequence[Kind], of_batch: Collection[int | None]
) -> tuple[list[Kind], str | None]:
    """Returns the kind of every value, and the first reason for which a frozen one cannot join the trunk.

    of_batch: inputs that no pass over the data knows, such as which examples of a batch are padding.
    """
    kinds = [Kind.CONSTANT] * len(program.avals)
    for value, kind in zip(program.inputs, inputs, strict=True):
        kinds[value] = kind
    depends, refused = list(kinds), None  # kinds as they would be if no examples were mixed
    kinds = [Kind.TAIL if value in of_batch else kind for value, kind in enumerate(kinds)]
    live = {equation.outputs for equation in needed(program, (), program.outputs)}
    for equation in program.equations:
        depend = max((depends[value] for value in equation.inputs), default=Kind.CONSTANT)
        kind = max((kinds[value] for value in equation.inputs), default=Kind.CONSTANT)
        if kind == Kind.CONSTANT and any(axes[value] is not None for value in equation.outputs):
            kind = Kind.TRUNK  # a copy of a constant for each example
        mixed = next((axis.reason for value in equation.outputs if isinstance(axis := axes[value], Mixed)), None)
        if mixed and depend == Kind.TRUNK and equation.outputs in live:
            refused = refused or mixed
        # Keys of random numbers are nothing that a file can hold.
        keys = any(is_key(program, value) for value in equation.outputs)
        if mixed or equation.origin.effects or (keys and kind == Kind.TRUNK):
            kind = Kind.TAIL
        for value in equation.outputs:
            depends[value], kinds[value] = depend, kind
    return kinds, refused


def is_key(program: Program, value: int) -> bool:
    """Says whether a value is a key of random numbers, or several."""
    return jax.dtypes.issubdtype(program.avals[value].dtype, jax.dtypes.extended)


def cheapest_features(program: Program, kinds: Sequence[Kind], bytes_per_example: Callable[[int], int]) -> set[int]:
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
