"""A traced function as one flat list of equations: nested calls dissolved, every value a number.

All that depends on how JAX represents programs is in this file and in `batch_axis`.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from finetune.trials.identity import array_text, identity

# Calls that mean no more than their body -> where it is. Calls with rules of their own, such as custom derivatives and
# rematerialisation, stay whole.
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"}

_BODIES = ("call_jaxpr", "jaxpr", "cond_jaxpr", "body_jaxpr")


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of a Python object, which is another one in every process


class Equation(NamedTuple):
    """outputs = primitive(inputs), by the numbers of the values."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    origin: Any  # the jaxpr's equation


class Program(NamedTuple):
    """Equations in an order in which they can be computed."""

    equations: list[Equation]
    avals: list[Any]  # shape and dtype of every value
    literals: dict[int, Any]  # the values known when traced
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def trace(function: Callable[..., Any], *arguments: Any) -> tuple[Program, Any]:
    """Returns (program, tree of output shapes) of `function` at `arguments`, trees of arrays or ShapeDtypeStructs."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return flatten(jaxpr), shapes


def flatten(jaxpr: Any) -> Program:
    """Returns a jaxpr as a program."""
    equations: list[Equation] = []
    avals: list[Any] = []
    literals: dict[int, Any] = {}

    def add(aval: Any) -> int:
        avals.append(aval)
        return len(avals) - 1

    def literal(aval: Any, value: Any) -> int:
        literals[add(aval)] = value
        return len(avals) - 1

    def walk(jaxpr: Any, arguments: Sequence[int]) -> tuple[int, ...]:
        numbers = dict(zip(_body(jaxpr).invars, arguments, strict=True))
        numbers |= {
            var: literal(var.aval, value) for var, value in zip(_body(jaxpr).constvars, _consts(jaxpr), strict=True)
        }

        def read(atoms: Iterable[Any]) -> tuple[int, ...]:
            return tuple(
                literal(atom.aval, atom.val) if isinstance(atom, core.Literal) else numbers[atom] for atom in atoms
            )

        for equation in _body(jaxpr).eqns:
            inputs, name = read(equation.invars), equation.primitive.name
            if name in _CALLS:
                outputs = walk(equation.params[_CALLS[name]], inputs)
            else:
                outputs = tuple(add(var.aval) for var in equation.outvars)
                equations.append(Equation(equation.primitive, equation.params, inputs, outputs, equation))
            numbers.update(zip(equation.outvars, outputs, strict=True))
        return read(_body(jaxpr).outvars)

    inputs = tuple(add(var.aval) for var in _body(jaxpr).invars)
    return Program(equations, avals, literals, inputs, walk(jaxpr, inputs))


# Some releases of JAX keep the arrays that a jaxpr has captured in a wrapper around it, others in the jaxpr itself.
def _body(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _consts(jaxpr: Any) -> Sequence[Any]:
    return getattr(jaxpr, "consts", ())


def bodies(equation: Equation) -> list[Program]:
    """Returns the programs inside an equation: of a custom derivative the primal one, of a cond each branch."""
    found = [equation.params[name] for name in _BODIES if name in equation.params]
    return [flatten(jaxpr) for jaxpr in (*found, *equation.params.get("branches", ()))]


def scan_counts(equation: Equation) -> tuple[int, int]:
    """Returns (constants, carried values) of a scan."""
    if "num_consts" in equation.params:
        return equation.params["num_consts"], equation.params["num_carry"]
    constants, carried, _ = equation.params["ft_in"].elts  # JAX 0.12 has no other, public, place for them
    return len(constants), len(carried)


def needed(program: Program, available: Collection[int], wanted: Iterable[int]) -> list[Equation]:
    """Returns the equations that compute the `wanted` values from those `available`."""
    missing, found = set(wanted).difference(available), []
    for equation in reversed(program.equations):
        if not missing.isdisjoint(equation.outputs):
            found.append(equation)
            missing.update(value for value in equation.inputs if value not in available)
    return found[::-1]


def evaluate(program: Program, known: Mapping[int, Any], wanted: Iterable[int]) -> dict[int, Any]:
    """Returns `known` and all values computed from them for the sake of those `wanted`."""
    values = {**program.literals, **known}
    for equation in needed(program, values, wanted):
        arguments = [values[value] for value in equation.inputs]
        with equation.origin.ctx.manager:
            results = equation.primitive.bind(*arguments, **equation.primitive.get_bind_params(equation.params))
        values.update(zip(equation.outputs, results if equation.primitive.multiple_results else [results], strict=True))
    return values


def alike(one: Program, other: Program) -> bool:
    """Says whether two programs differ in sizes of axes and parameters of equations alone."""

    def skeleton(program: Program) -> Any:
        wires = [(equation.primitive, equation.inputs, equation.outputs) for equation in program.equations]
        ranks = [len(aval.shape) for aval in program.avals]
        return wires, ranks, program.inputs, program.outputs, list(program.literals)

    return skeleton(one) == skeleton(other)


def merged(program: Program, same: Sequence[int]) -> Program:
    """Returns a program that reads same[value] in place of each value; what nothing reads any more stays in it."""

    def read(values: Iterable[int]) -> tuple[int, ...]:
        return tuple(same[value] for value in values)

    equations = [each._replace(inputs=read(each.inputs)) for each in program.equations]
    return program._replace(equations=equations, outputs=read(program.outputs))


def names(program: Program, inputs: Sequence[str]) -> list[str]:
    """Returns a name (hex) for every value, a hash of how it is computed from the inputs, which are named `inputs`.

    What is computed alike has the same name, in other programs and other processes too. Derivative rules do not count.
    """
    found = [""] * len(program.avals)
    for value, name in zip(program.inputs, inputs, strict=True):
        found[value] = _hash(name, str(program.avals[value]))
    for value, literal in program.literals.items():
        found[value] = _hash(text(literal), str(program.avals[value]))
    for equation in program.equations:
        if not equation.outputs:  # it prints, say
            continue
        stem = _hash(equation.primitive.name, text(equation.params), *(found[value] for value in equation.inputs))
        for index, value in enumerate(equation.outputs):
            found[value] = _hash(stem, str(index), str(program.avals[value]))
    return found


def text(value: Any) -> str:
    """Returns what tells a parameter of an equation from others, the same in every process."""
    if isinstance(value, dict):
        # The other parameters of a custom derivative are its rules.
        kept = {"call_jaxpr": value["call_jaxpr"]} if "call_jaxpr" in value else value
        return ";".join(f"{name}={text(kept[name])}" for name in sorted(kept))
    if isinstance(value, (tuple, list)):
        return f"({','.join(map(text, value))})"
    if isinstance(value, (core.Jaxpr, core.ClosedJaxpr)):
        body = flatten(value)
        values = names(body, [str(index) for index in range(len(body.inputs))])
        return " ".join(values[output] for output in body.outputs)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return array_text(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return text({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    written = str(value)
    is_python = callable(value) and not isinstance(value, type)
    return identity(value) if is_python or _ADDRESS.search(written) else written


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
