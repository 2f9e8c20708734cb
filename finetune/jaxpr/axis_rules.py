"""What each primitive does with the axis of examples: the rules of those without programs of their own inside.

A rule is given an equation of the program of two examples, its like of another size, and where the examples are in its
inputs. It says where they are in the outputs, or None if it treats them other than alone and all alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from finetune.jaxpr.program import Equation, text


class Mixed(NamedTuple):
    """In place of an axis: the value of one example may depend on others, or on its place in the batch."""

    reason: str


# Number of the axis of examples, whose size is a multiple of the batch when other axes have been merged into it, behind
# the examples; None: the value is the same for every batch of every size.
Axis = int | None | Mixed

_ELEMENTWISE = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz conj
convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow
is_finite le lgamma log log1p logistic lt max min mul name ne neg nextafter not or polygamma population_count pow real
reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
square stop_gradient sub tan tanh xor
"""
_REDUCTIONS = "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor"
ELEMENTWISE, REDUCTIONS = frozenset(_ELEMENTWISE.split()), frozenset(_REDUCTIONS.split())
_SCATTERS = frozenset(("scatter", "scatter-add", "scatter-max", "scatter-min", "scatter-mul", "scatter-sub"))
_CUMULATIVE = frozenset(("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"))
_RANDOM_NAMES = ("bits", "clone", "fold_in", "seed", "split", "unwrap", "wrap")
# Random numbers of keys in a row: each key's own, behind its axes.
_RANDOM = frozenset(f"random_{name}" for name in ["bits", "clone", "fold_in", "seed", "split", "unwrap", "wrap"])
_WINDOWS = frozenset(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"))
_RANDOM = frozenset(("threefry2x32", *(f"random_{name}" for name in _RANDOM_NAMES)))

_SHAPES = ("new_sizes", "shape")  # parameters that are shapes of outputs, which are compared as such
_EXTENTS = ("limit_indices", "slice_sizes")  # parameters that grow along the axis of the first input


class Step(NamedTuple):
    """An equation of the program of two examples, its like of `size`, and what a rule needs to know of both."""

    equation: Equation
    other: Equation
    axes: list[int | None]  # of the inputs
    inputs: list[tuple[int, ...]]  # shapes, for two examples
    outputs: list[tuple[int, ...]]
    grown: list[tuple[int, ...]]  # shapes of the outputs, for `size`
    size: int

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params


def rule_of(name: str) -> Callable[[Step], Sequence[Axis] | None] | None:
    """Returns the rule of a primitive; None if there is none."""
    return _elementwise if name in ELEMENTWISE else _RULES.get(name)


def alike_but_in_size(step: Step) -> bool:
    """Says whether both equations have the same parameters, but for the size of the batch in shapes."""
    return _settings(step.equation, step.axes) == _settings(step.other, step.axes)


def _settings(equation: Equation, axes: Sequence[int | None]) -> str:
    kept = {name: value for name, value in equation.params.items() if name not in _SHAPES}
    for name in _EXTENTS:
        if name in kept:
            kept[name] = [extent for index, extent in enumerate(kept[name]) if index != axes[0]]
    return text(kept)


def _one(axes: Sequence[int | None]) -> int | None:
    """Returns the axis that all inputs which have one agree on; None if they do not."""
    found = {axis for axis in axes if axis is not None}
    return found.pop() if len(found) == 1 else None


def _all(step: Step, axis: int | None) -> list[Axis] | None:
    return None if axis is None else [axis] * len(step.outputs)


def _elementwise(step: Step) -> list[Axis] | None:
    return _all(step, _one(step.axes))


def _apart_from(parameter: str) -> Callable[[Step], list[Axis] | None]:
    """Returns the rule of primitives that act along the axes that `parameter` names and keep all axes."""

    def rule(step: Step) -> list[Axis] | None:
        axis, used = _one(step.axes), step.params[parameter]
        return None if axis in (used if isinstance(used, tuple) else (used,)) else _all(step, axis)

    return rule


def _removes(parameter: str) -> Callable[[Step], list[Axis] | None]:
    def rule(step: Step) -> list[Axis] | None:
        axis, gone = _one(step.axes), step.params[parameter]
        return None if axis is None or axis in gone else _all(step, axis - sum(index < axis for index in gone))

    return rule


def _broadcast(step: Step) -> list[Axis] | None:
    kept = step.params["broadcast_dimensions"]
    if step.axes[0] is not None:
        return [kept[step.axes[0]]]
    growing = [axis for axis, size in enumerate(step.outputs[0]) if size != step.grown[0][axis]]
    return [growing[0]]


def _stack(step: Step) -> list[Axis] | None:
    axis = _one(step.axes)
    return _all(step, None if axis is None else axis + (step.params["axis"] <= axis))


def _unstack(step: Step) -> list[Axis] | None:
    axis, gone = step.axes[0], step.params["axis"]
    return None if axis is None or axis == gone else _all(step, axis - (gone < axis))


def _tile(step: Step) -> list[Axis] | None:
    return step.axes if step.params["reps"][step.axes[0]] == 1 else None  # type: ignore[return-value]


def _iota(step: Step) -> list[Axis] | None:
    growing = [axis for axis, size in enumerate(step.outputs[0]) if size != step.grown[0][axis]]
    return [growing[0]] if growing and growing[0] != step.params["dimension"] else None


def _random(step: Step) -> list[Axis] | None:
    """Of keys of one generator: what a vmapped other one draws for a key may depend on the keys beside it."""
    variables = (*step.equation.origin.invars, *step.equation.origin.outvars)
    kinds = {str(each.aval.dtype) for each in variables if jax.dtypes.issubdtype(each.aval.dtype, jax.dtypes.extended)}
    return _all(step, _one(step.axes)) if kinds <= {"key<fry>"} else None


def _update(step: Step) -> list[Axis] | None:
    """Of a dynamic slice: all examples are replaced, at the same place in each."""
    axis, *rest = step.axes[1:]
    if axis is None or step.axes[0] != axis or any(other is not None for other in rest):
        return None
    return [axis] if step.inputs[0][axis] == step.inputs[1][axis] else None


def _reshape(step: Step) -> list[Axis] | None:
    """The examples are at the axis that grows, if as many entries as before lie in front of it."""
    axis, (shape,), (grown,) = step.axes[0], step.outputs, step.grown
    growing = [index for index, size in enumerate(shape) if size != grown[index]]
    if axis is None or step.params["dimensions"] is not None or len(growing) != 1:
        return None
    same = math.prod(step.inputs[0][:axis]) == math.prod(shape[: growing[0]])
    return [growing[0]] if same else None


def _transpose(step: Step) -> list[Axis] | None:
    return [step.params["permutation"].index(step.axes[0])]


def _slice(step: Step) -> list[Axis] | None:
    """Of a static or a dynamic slice: all examples are taken, from the same place in each."""
    axis = step.axes[0]
    if axis is None or any(other is not None for other in step.axes[1:]):
        return None
    return [axis] if step.inputs[0][axis] == step.outputs[0][axis] else None


def _pad(step: Step) -> list[Axis] | None:
    axis = step.axes[0]
    return [axis] if axis is not None and step.params["padding_config"][axis] == (0, 0, 0) else None


def _top_k(step: Step) -> list[Axis] | None:
    last = len(step.inputs[0]) - 1
    return None if step.axes[0] == step.params.get("axis", last) else _all(step, step.axes[0])


def _dot(step: Step) -> list[Axis] | None:
    contracting, batch = step.params["dimension_numbers"]
    free = [
        [axis for axis in range(len(shape)) if axis not in (*contracting[side], *batch[side])]
        for side, shape in enumerate(step.inputs)
    ]
    left, right = step.axes
    if left is not None and right is not None:
        pairs = list(zip(*batch, strict=True))
        return [pairs.index((left, right))] if (left, right) in pairs else None
    if right is None:
        return [len(batch[0]) + free[0].index(left)] if left in free[0] else None
    return [len(batch[0]) + len(free[0]) + free[1].index(right)] if right in free[1] else None


def _convolution(step: Step) -> list[Axis] | None:
    numbers = step.params["dimension_numbers"]
    alone = step.axes == [numbers.lhs_spec[0], None] and step.params["batch_group_count"] == 1
    return [numbers.out_spec[0]] if alone else None


def _window(step: Step) -> list[Axis] | None:
    axis = _one(step.axes)
    if axis is None or step.params["window_dimensions"][axis] != 1 or step.params["window_strides"][axis] != 1:
        return None
    dilations = [step.params[name][axis] for name in ("base_dilation", "window_dilation")]
    return _all(step, axis) if dilations == [1, 1] and tuple(step.params["padding"][axis]) == (0, 0) else None


def _gather(step: Step) -> list[Axis] | None:
    """Rows looked up for each example, or the same window of each example, or a window of its own of each."""
    numbers, (operand, indices) = step.params["dimension_numbers"], step.axes
    rows = [axis for axis in range(len(step.outputs[0])) if axis not in numbers.offset_dims]
    if operand is None:
        return [rows[indices]] if indices is not None and indices < len(rows) else None
    if indices is not None:
        pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
        return [rows[indices]] if (operand, indices) in pairs else None
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    window = [axis for axis in range(len(step.inputs[0])) if axis not in gone]
    whole = operand not in numbers.start_index_map and step.params["slice_sizes"][operand] == step.inputs[0][operand]
    return [numbers.offset_dims[window.index(operand)]] if whole and operand in window else None


def _scatter(step: Step) -> list[Axis] | None:
    """Written at the same place in each example, or at places of its own in each."""
    numbers, (operand, indices, updates) = step.params["dimension_numbers"], step.axes
    if operand is None or updates is None:
        return None
    if indices is not None:
        pairs = zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
        rows = [axis for axis in range(len(step.inputs[2])) if axis not in numbers.update_window_dims]
        return [operand] if (operand, indices) in pairs and rows[indices] == updates else None
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    window = [axis for axis in range(len(step.inputs[0])) if axis not in gone]
    if operand not in window or operand in numbers.scatter_dims_to_operand_dims:
        return None
    whole = step.inputs[2][updates] == step.inputs[0][operand]
    return [operand] if whole and numbers.update_window_dims[window.index(operand)] == updates else None


_RULES: dict[str, Callable[[Step], Sequence[Axis] | None]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _apart_from("dimension"),
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "dynamic_slice": _slice,
    "dynamic_update_slice": _update,
    "gather": _gather,
    "iota": _iota,
    "optimization_barrier": lambda step: step.axes,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _apart_from("dimensions"),
    "slice": _slice,
    "sort": _apart_from("dimension"),
    "split": _apart_from("axis"),
    "squeeze": _removes("dimensions"),
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
    "transpose": _transpose,
    "unstack": _unstack,
    **dict.fromkeys(_CUMULATIVE, _apart_from("axis")),
    **dict.fromkeys(_RANDOM, _elementwise),
    **dict.fromkeys(_RANDOM, _random),
    **dict.fromkeys(REDUCTIONS, _removes("axes")),
    **dict.fromkeys(_SCATTERS, _scatter),
    **dict.fromkeys(_WINDOWS, _window),
}
