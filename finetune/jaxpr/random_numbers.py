"""Random numbers once for each seed: members of one seed draw the same ones, and differ in what they do with them.

A dropout mask compares a random number with a rate. The number depends on (seed, epoch, example) alone, the rate is a
hyperparameter. So a forward pass is cut where its random numbers end, as trunk/cut.py cuts where its frozen part ends:
they are drawn once for each seed of a population, and a member takes those of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from finetune.jaxpr.program import Program, evaluate, needed, trace


def with_draws(forward: Callable[..., Any], *arguments: Any, keys: jax.Array, place: jax.Array) -> Any:
    """Returns forward(*arguments, keys[place]), its random numbers drawn for all of `keys` [seeds, B].

    Under vmap over members with unbatched `keys`, drawing costs as much as there are seeds, however many members.
    """
    program, shapes = trace(forward, *jax.tree.map(_shape, arguments), _shape(keys[0]))
    *given, key = program.inputs
    drawn = _drawn(program, key)
    table = jax.vmap(lambda keys: [evaluate(program, {key: keys}, [value])[value] for value in drawn])(keys)
    known = dict(zip(given, jax.tree.leaves(arguments), strict=True))
    known |= {value: draws[place] for value, draws in zip(drawn, table, strict=True)}
    values = evaluate(program, known, program.outputs)
    return jax.tree.unflatten(jax.tree.structure(shapes), [values[value] for value in program.outputs])


def _drawn(program: Program, key: int) -> list[int]:
    """Returns the values that depend on the key alone and are read by what depends on more, the key itself included."""
    drawn, known = {key}, {key, *program.literals}
    for equation in program.equations:
        if known.issuperset(equation.inputs) and not equation.origin.effects:
            known.update(equation.outputs)
            drawn.update(equation.outputs if not drawn.isdisjoint(equation.inputs) else ())
    rest = [each for each in needed(program, (), program.outputs) if not drawn.issuperset(each.outputs)]
    read = {*program.outputs, *(value for equation in rest for value in equation.inputs)}
    return sorted(drawn & read)


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(array), jnp.asarray(array).dtype)
