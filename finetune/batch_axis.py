"""Where the axis of examples is in every value of a program, and where examples may influence each other.

A program is traced at two batch sizes, 2 and 3, so that the axes that grow with the batch show. Each primitive then has
a rule that says whether it treats the examples along that axis alone, one like the other. What has no rule counts as
mixing them: the answer can be too careful, and never too bold.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from finetune.jaxpr import Equation, Program, alike, bodies, scan_counts, text


class Mixed(NamedTuple):
    """In place of an axis: the value of one example may depend on others, or on its place in the batch."""

    reason: str


# Number of the axis of examples, whose size is a multiple of the batch when other axes have been merged into it, behind
# the examples; None: the value is the same for every batch of every size.
Axis = int | None | Mixed

SIZES = (2, 3)  # of the batches that are compared; JAX drops what a batch of one does not need

_ELEMENTWISE = """
abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz conj
convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow
is_finite le lgamma log log1p logistic lt max min mul name ne neg nextafter not or polygamma population_count pow real
reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
square stop_gradient sub tan tanh xor
"""
_REDUCTIONS = "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor"
ELEMENTWISE, REDUCTIONS = frozenset(_ELEMENTWISE.split()), frozenset(_REDUCTIONS.split())
_CUMULATIVE = frozenset(("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"))
_WINDOWS = frozenset(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"))
# Random numbers of keys in a row: each key's own, behind its axes.
_RANDOM = frozenset(f"random_{name}" for name in ["bits", "clone", "fold_in", "seed", "split", "unwrap", "wrap"])
_CALLS = frozenset(("checkpoint", "custom_jvp_call", "custom_vjp_call", "remat", "remat2"))


class _Step(NamedTuple):
    """An equation of the program of two examples, its like of three, and what a rule needs to know of both."""

    equation: Equation
    other: Equation
    axes: list[int | None]  # of the inputs
    inputs: list[tuple[int, ...]]  # shapes, for two examples
    outputs: list[tuple[int, ...]]
    grown: list[tuple[int, ...]]  # shapes of the outputs, for three

    @property
    def params(self) -> dict[str, Any]:
        return self.equation.params


def axes_of(two: Program, three: Program, inputs: Sequence[int | None]) -> list[Axis]:
    """Returns the axis of examples of every value, from programs that are alike and the axes of their inputs."""
    axes: list[Axis] = [None] * len(two.avals)
    for value, axis in zip(two.inputs, inputs, strict=True):
        axes[value] = axis
    for value, literal in two.literals.items():
        if text(literal) != text(three.literals[value]):
            axes[value] = Mixed("a number in the program depends on the batch size")
    for equation, other in zip(two.equations, three.equations, strict=True):
        shapes = [[program.avals[value].shape for value in equation.outputs] for program in (two, three)]
        entered = [axes[value] for value in equation.inputs]
        mixed = next((axis for axis in entered if isinstance(axis, Mixed)), None)
        if mixed is not None:
            found: Sequence[Axis] = [mixed] * len(equation.outputs)
        else:
            step = _Step(equation, other, entered, [two.avals[value].shape for value in equation.inputs], *shapes)  # type: ignore[arg-type]
            found = _follow(step)
        for value, leaving in zip(equation.outputs, found, strict=True):
            axes[value] = leaving
    return axes


def _follow(step: _Step) -> Sequence[Axis]:
    """Returns the axes of the outputs; a rule's answer counts only if those and no other axes grow with the batch."""
    name = step.equation.primitive.name
    nothing: Sequence[Axis] = [None] * len(step.outputs)
    found: Sequence[Axis] | None = None
    if all(axis is None for axis in step.axes) and step.outputs == step.grown:
        found = nothing
    elif name in ELEMENTWISE:
        found = _elementwise(step)
    elif name in _RULES:
        found = _RULES[name](step)
    if found is not None and all(map(_grows_along, found, step.outputs, step.grown)):
        return found
    scope = str(step.equation.origin.source_info.name_stack)
    where = f"{name} in {scope}" if scope else name
    return [Mixed(f"examples may influence each other in {where}")] * len(step.outputs)


def _grows_along(axis: Axis, two: tuple[int, ...], three: tuple[int, ...]) -> bool:
    if isinstance(axis, Mixed):
        return True
    growing = [index for index, sizes in enumerate(zip(two, three, strict=True)) if sizes[0] != sizes[1]]
    if axis is None:
        return not growing
    return growing == [axis] and two[axis] % 2 == 0 and two[axis] // 2 * 3 == three[axis]


def _one(axes: Sequence[int | None]) -> int | None:
    """Returns the axis that all inputs which have one agree on; None if they do not."""
    found = {axis for axis in axes if axis is not None}
    return found.pop() if len(found) == 1 else None


def _all(step: _Step, axis: int | None) -> list[Axis] | None:
    return None if axis is None else [axis] * len(step.outputs)


def _elementwise(step: _Step) -> list[Axis] | None:
    return _all(step, _one(step.axes)) if text(step.params) == text(step.other.params) else None


def _apart_from(parameter: str) -> Callable[[_Step], list[Axis] | None]:
    """Returns the rule of primitives that act along the axes that `parameter` names and keep all axes."""

    def rule(step: _Step) -> list[Axis] | None:
        axis, used = _one(step.axes), step.params[parameter]
        return None if axis in (used if isinstance(used, tuple) else (used,)) else _all(step, axis)

    return rule


def _removes(parameter: str) -> Callable[[_Step], list[Axis] | None]:
    def rule(step: _Step) -> list[Axis] | None:
        axis, gone = _one(step.axes), step.params[parameter]
        return None if axis is None or axis in gone else _all(step, axis - sum(index < axis for index in gone))

    return rule


def _broadcast(step: _Step) -> list[Axis] | None:
    kept = step.params["broadcast_dimensions"]
    if step.axes[0] is not None:
        return [kept[step.axes[0]]]
    growing = [axis for axis, size in enumerate(step.outputs[0]) if size != step.grown[0][axis]]
    return [growing[0]]


def _reshape(step: _Step) -> list[Axis] | None:
    """The examples are at the axis that grows, if as many entries as before lie in front of it."""
    axis, (shape,), (grown,) = step.axes[0], step.outputs, step.grown
    growing = [index for index, size in enumerate(shape) if size != grown[index]]
    if axis is None or step.params["dimensions"] is not None or len(growing) != 1:
        return None
    same = math.prod(step.inputs[0][:axis]) == math.prod(shape[: growing[0]])
    return [growing[0]] if same else None


def _transpose(step: _Step) -> list[Axis] | None:
    return [step.params["permutation"].index(step.axes[0])]


def _slice(step: _Step) -> list[Axis] | None:
    """Of a static or a dynamic slice: all examples are taken, from the same place in each."""
    axis = step.axes[0]
    if axis is None or any(other is not None for other in step.axes[1:]):
        return None
    return [axis] if step.inputs[0][axis] == step.outputs[0][axis] else None


def _pad(step: _Step) -> list[Axis] | None:
    axis = step.axes[0]
    return [axis] if axis is not None and step.params["padding_config"][axis] == (0, 0, 0) else None


def _top_k(step: _Step) -> list[Axis] | None:
    last = len(step.inputs[0]) - 1
    return None if step.axes[0] == step.params.get("axis", last) else _all(step, step.axes[0])


def _dot(step: _Step) -> list[Axis] | None:
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


def _convolution(step: _Step) -> list[Axis] | None:
    numbers = step.params["dimension_numbers"]
    alone = step.axes == [numbers.lhs_spec[0], None] and step.params["batch_group_count"] == 1
    return [numbers.out_spec[0]] if alone else None


def _window(step: _Step) -> list[Axis] | None:
    axis = _one(step.axes)
    if axis is None or step.params["window_dimensions"][axis] != 1 or step.params["window_strides"][axis] != 1:
        return None
    dilations = [step.params[name][axis] for name in ("base_dilation", "window_dilation")]
    return _all(step, axis) if dilations == [1, 1] and tuple(step.params["padding"][axis]) == (0, 0) else None


def _gather(step: _Step) -> list[Axis] | None:
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


def _inside(step: _Step, axes: Sequence[int | None]) -> Sequence[Axis] | None:
    """Returns the axes of the outputs of an equation's bodies, which must agree."""
    answers = []
    for two, three in zip(bodies(step.equation), bodies(step.other), strict=True):
        if not alike(two, three):
            return None
        found = axes_of(two, three, axes)
        answers.append([found[value] for value in two.outputs])
    return answers[0] if all(answer == answers[0] for answer in answers) else None


def _cond(step: _Step) -> Sequence[Axis] | None:
    return _inside(step, step.axes[1:])


def _scan(step: _Step) -> Sequence[Axis] | None:
    constants, carried = scan_counts(step.equation)
    scanned = step.axes[constants + carried :]
    if 0 in scanned:
        return None
    slices = [None if axis is None else axis - 1 for axis in scanned]
    found = _inside(step, [*step.axes[: constants + carried], *slices])
    mixed = next((axis for axis in found or () if isinstance(axis, Mixed)), None)
    if mixed is not None:
        return [mixed] * len(step.outputs)
    if found is None or list(found[:carried]) != step.axes[constants : constants + carried]:
        return None
    return [*found[:carried], *(axis + 1 if isinstance(axis, int) else axis for axis in found[carried:])]


_RULES: dict[str, Callable[[_Step], Sequence[Axis] | None]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _apart_from("dimension"),
    "cond": _cond,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "dynamic_slice": _slice,
    "gather": _gather,
    "optimization_barrier": lambda step: step.axes,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _apart_from("dimensions"),
    "scan": _scan,
    "slice": _slice,
    "sort": _apart_from("dimension"),
    "split": _apart_from("axis"),
    "squeeze": _removes("dimensions"),
    "top_k": _top_k,
    "transpose": _transpose,
    **dict.fromkeys(_CALLS, lambda step: _inside(step, step.axes)),
    **dict.fromkeys(_CUMULATIVE, _apart_from("axis")),
    **dict.fromkeys(REDUCTIONS, _removes("axes")),
    **dict.fromkeys(_RANDOM, _elementwise),
    **dict.fromkeys(_WINDOWS, _window),
}
