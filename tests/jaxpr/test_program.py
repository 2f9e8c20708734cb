"""Programs as data: what is alike has axes to compare, and equal values may be one."""

import jax
import jax.numpy as jnp
import numpy as np

from finetune.jaxpr.program import alike, evaluate, merged, trace

X = jax.ShapeDtypeStruct((3,), jnp.float32)


def test_programs_of_other_ranks_are_not_alike():
    of_rank = [
        trace(lambda x, axes=axes: jnp.sum(x, axes), jax.ShapeDtypeStruct((2, 3), jnp.float32)) for axes in (0, (0, 1))
    ]
    assert not alike(of_rank[0][0], of_rank[1][0])


def test_a_merged_program_reads_one_of_two_equal_values():
    program, _ = trace(lambda x: jnp.sin(x) + jnp.sin(x), X)
    first, second, total = (equation.outputs[0] for equation in program.equations)
    same = list(range(len(program.avals)))
    same[second] = first
    known = evaluate(merged(program, same), {program.inputs[0]: np.float32([0, 1, 2])}, [total])
    assert second not in known
    np.testing.assert_allclose(known[total], 2 * np.sin([0, 1, 2]), rtol=1e-6)
