"""Which part of a program each value belongs to, and which values the trunk hands to the tail: see trunk.py."""

from collections.abc import Callable
from enum import IntEnum

from finetune.batch_axis import ELEMENTWISE, REDUCTIONS, Axis, Mixed
from finetune.jaxpr import Equation, Program, bodies, calls_back, needed
from finetune.mincut import smallest_cut

# What the tail may repeat: computing entry by entry, reducing, moving, copying.
_MOVES = "broadcast_in_dim concatenate iota pad reshape rev slice split squeeze transpose"
_CHEAP = ELEMENTWISE | REDUCTIONS | frozenset(_MOVES.split())


class Kind(IntEnum):
    """What a value belongs to: the largest of the kinds of all that it is computed from."""

    CONSTANT = 0
    TRUNK = 1
    TAIL = 2


def mark(program: Program, axes: list[Axis], inputs: list[Kind]) -> tuple[list[Kind], str | None]:
    """Returns the kind of every value, and the first reason for which a frozen one cannot join the trunk."""
    kinds = [Kind.CONSTANT] * len(program.avals)
    for value, kind in zip(program.inputs, inputs, strict=True):
        kinds[value] = kind
    depends, refused = list(kinds), None  # kinds as they would be if no examples were mixed
    alive = needed(program, (), program.outputs)
    live = {equation.outputs for equation in alive}
    read = {*program.outputs, *(value for equation in alive for value in equation.inputs)}
    for equation in program.equations:
        depend = max((depends[value] for value in equation.inputs), default=Kind.CONSTANT)
        kind = max((kinds[value] for value in equation.inputs), default=Kind.CONSTANT)
        mixed = next((axis for value in equation.outputs if isinstance(axis := axes[value], Mixed)), None)
        reason = (
            mixed.reason if mixed else _stays(equation, [axes[value] for value in equation.outputs if value in read])
        )
        if reason and depend == Kind.TRUNK and equation.outputs in live:
            refused = refused or reason
        if reason:
            kind = Kind.TAIL
        elif kind == Kind.CONSTANT and any(axes[value] is not None for value in equation.outputs):
            kind = Kind.TRUNK  # a copy of a constant for each example
        for value in equation.outputs:
            depends[value], kinds[value] = depend, kind
    return kinds, refused


def _stays(equation: Equation, axes: list[Axis]) -> str | None:
    """Returns why an equation of frozen values belongs to the tail; axes: of its outputs that are read."""
    name = equation.primitive.name
    if equation.origin.effects:
        return f"{name} has effects"
    if calls_back(equation):
        return f"{name} calls Python, which may say something else another time"
    if None in axes and any(axis is not None for axis in axes):
        return f"{name} gives numbers of the batch beside those of examples"
    return None


def cheapest_features(
    program: Program, kinds: list[Kind], axes: list[Axis], bytes_per_example: Callable[[int], int]
) -> set[int]:
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
            outputs = [value for value in equation.outputs if axes[value] is not None]  # the others are not read
            edges.update(dict.fromkeys(outputs, inputs))
            costly.update(() if _is_cheap(equation) else outputs)
    weight = {value: bytes_per_example(value) for value in edges}
    cheap_edges = {value: inputs for value, inputs in edges.items() if value not in costly}
    return smallest_cut(start, cheap_edges, costly, weight)


def _is_cheap(equation: Equation) -> bool:
    name = equation.primitive.name
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return all(_is_cheap(inner) for body in bodies(equation) for inner in body.equations)
    return name in _CHEAP
