"""Where the axis of examples is in every value of a program, and where examples may influence each other.

A program is traced at two batch sizes, 2 and 3, so that the axes that grow with the batch show. Each primitive then has
a rule that says whether it treats the examples along that axis alone, one like the other. What has no rule counts as
mixing them: the answer can be too careful, and never too bold.
"""

from collections.abc import Callable, Sequence
from typing import Any

from finetune.jaxpr.axis_rules import Axis, Mixed, Step, alike_but_in_size, rule_of
from finetune.jaxpr.program import Program, alike, bodies, scan_counts, text

SIZES = (2, 3)  # of the batches that are compared; JAX drops what a batch of one does not need


def axes_of(two: Program, other: Program, inputs: Sequence[int | None], size: int = SIZES[1]) -> list[Axis]:
    """Returns the axis of examples of every value, from programs that are alike and the axes of their inputs.

    two, other: the program of two examples and that of `size`, which is not two.
    """
    axes: list[Axis] = [None] * len(two.avals)
    for value, axis in zip(two.inputs, inputs, strict=True):
        axes[value] = axis
    for value, literal in two.literals.items():
        if text(literal) != text(other.literals[value]):
            axes[value] = Mixed("a number in the program depends on the batch size")
    for equation, like in zip(two.equations, other.equations, strict=True):
        entered = [axes[value] for value in equation.inputs]
        mixed = next((axis for axis in entered if isinstance(axis, Mixed)), None)
        if mixed is not None:
            found: Sequence[Axis] = [mixed] * len(equation.outputs)
        else:
            known, outputs = (
                [two.avals[value].shape for value in each] for each in (equation.inputs, equation.outputs)
            )
            grown = [other.avals[value].shape for value in equation.outputs]
            found = _follow(Step(equation, like, entered, known, outputs, grown, size))  # type: ignore[arg-type]
        for value, leaving in zip(equation.outputs, found, strict=True):
            axes[value] = leaving if leaving is None or isinstance(leaving, Mixed) else int(leaving)  # of NumPy
    return axes


def mixed(two: Program, other: Program, inputs: Sequence[int | None]) -> str:
    """Returns why an output of one example depends on the others of its batch, "" where none does; see `axes_of`."""
    if not alike(two, other):
        return "the program changes with the batch size"
    axes = axes_of(two, other, inputs)
    return next((axis.reason for axis in map(axes.__getitem__, two.outputs) if isinstance(axis, Mixed)), "")


def _follow(step: Step) -> Sequence[Axis]:
    """Returns the axes of the outputs; a rule's answer counts only if those and no other axes grow with the batch."""
    name, scope = step.equation.primitive.name, str(step.equation.origin.source_info.name_stack)
    where = f"{name} in {scope}" if scope else name
    found: Sequence[Axis] | None
    if name in _WITH_BODIES:
        found = _WITH_BODIES[name](step)
    elif "callback" in step.params:
        return [Mixed(f"{where} runs a function that is not part of the program")] * len(step.outputs)
    elif not alike_but_in_size(step):
        return [Mixed(f"the batch size is a number in {where}")] * len(step.outputs)
    elif all(axis is None for axis in step.axes) and step.outputs == step.grown:
        return [None] * len(step.outputs)
    else:
        rule = rule_of(name)
        found = rule(step) if rule else None
    leaving = zip(found or (), step.outputs, step.grown, strict=found is not None)
    if found is not None and all(_grows_along(step.size, *each) for each in leaving):
        return found
    return [Mixed(f"examples may influence each other in {where}")] * len(step.outputs)


def _grows_along(size: int, axis: Axis, two: tuple[int, ...], other: tuple[int, ...]) -> bool:
    if isinstance(axis, Mixed):
        return True
    growing = [index for index, sizes in enumerate(zip(two, other, strict=True)) if sizes[0] != sizes[1]]
    if axis is None:
        return not growing
    return growing == [axis] and two[axis] % 2 == 0 and two[axis] // 2 * size == other[axis]


def _inside(step: Step, entering: Sequence[Sequence[int | None]]) -> list[list[Axis]] | None:
    """Returns the axes of the outputs of each body of an equation, given those of its inputs."""
    found = []
    for two, other, axes in zip(bodies(step.equation), bodies(step.other), entering, strict=True):
        if not alike(two, other):
            return None
        of_body = axes_of(two, other, axes, step.size)
        found.append([of_body[value] for value in two.outputs])
    return found


def _agreed(step: Step, axes: Sequence[int | None]) -> Sequence[Axis] | None:
    """Returns the axes of the outputs of an equation's bodies, which must be the same."""
    found = _inside(step, [axes] * len(bodies(step.equation)))
    return found[0] if found and all(each == found[0] for each in found) else None


def _loop(step: Step, before: Sequence[int | None], after: Sequence[Axis], stacked: Sequence[Axis] = ()) -> Any:
    """Returns the axes of what a loop carries, which a turn must leave where they were, and of what it stacks."""
    mixed = next((axis for axis in (*after, *stacked) if isinstance(axis, Mixed)), None)
    if mixed is not None:
        return [mixed] * len(step.outputs)
    return [*after, *stacked] if list(before) == list(after) else None


def _scan(step: Step) -> Sequence[Axis] | None:
    constants, carried = scan_counts(step.equation)
    scanned = step.axes[constants + carried :]
    turns = [[equation.params[name] for name in ("length", "reverse")] for equation in (step.equation, step.other)]
    if 0 in scanned:
        return _map(step) if carried == 0 and set(scanned) == {0} else None
    if turns[0] != turns[1]:
        return None
    slices = [None if axis is None else axis - 1 for axis in scanned]
    found = _agreed(step, [*step.axes[: constants + carried], *slices])
    if found is None:
        return None
    stacked = [axis + 1 if isinstance(axis, int) else axis for axis in found[carried:]]
    return _loop(step, step.axes[constants : constants + carried], found[:carried], stacked)


def _map(step: Step) -> Sequence[Axis] | None:
    """Of a scan over the examples that carries nothing: each is by itself, and then has no axis."""
    constants, _ = scan_counts(step.equation)
    if any(axis is not None for axis in step.axes[:constants]):
        return None
    found = _agreed(step, [None] * len(step.axes))
    return found and [0 if axis is None else axis for axis in found]


def _while(step: Step) -> Sequence[Axis] | None:
    """All examples take as many turns, or the condition would have an axis of examples, or mix them."""
    of_condition, of_body = step.params["cond_nconsts"], step.params["body_nconsts"]
    carried = step.axes[of_condition + of_body :]
    found = _inside(step, [[*step.axes[:of_condition], *carried], step.axes[of_condition:]])
    return _loop(step, carried, found[1]) if found and found[0] == [None] else None


_WITH_BODIES: dict[str, Callable[[Step], Sequence[Axis] | None]] = {
    "cond": lambda step: _agreed(step, step.axes[1:]),
    "scan": _scan,
    "while": _while,
    **dict.fromkeys(
        ("checkpoint", "custom_jvp_call", "custom_vjp_call", "remat", "remat2"),
        lambda step: _agreed(step, step.axes),
    ),
}
