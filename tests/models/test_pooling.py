import jax.numpy as jnp
import numpy as np

from finetune.models.pooling import pool

HIDDEN = jnp.array([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[5.0, 7.0], [100.0, 100.0], [100.0, 100.0]]])
VALID = jnp.array([[True, True, False], [True, False, False]])


def test_mean_is_over_valid_positions():
    np.testing.assert_array_equal(pool(HIDDEN, VALID, "mean"), [[2.0, 4.0], [5.0, 7.0]])


def test_first():
    np.testing.assert_array_equal(pool(HIDDEN, VALID, "first"), [[1.0, 2.0], [5.0, 7.0]])


def test_max_is_over_valid_positions():
    np.testing.assert_array_equal(pool(HIDDEN - 10, VALID, "max"), [[-7.0, -4.0], [-5.0, -3.0]])
    np.testing.assert_array_equal(pool(HIDDEN, jnp.zeros((2, 3), bool), "max"), np.zeros((2, 2)))


def test_bfloat16_is_averaged_in_float32():
    pooled = pool(jnp.full((1, 1000, 1), 1.0078125, jnp.bfloat16), jnp.ones((1, 1000), bool), "mean")
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, 1.0078125, rtol=1e-6)


def test_no_valid_position_gives_zeros():
    np.testing.assert_array_equal(pool(HIDDEN, jnp.zeros((2, 3), bool), "mean"), np.zeros((2, 2)))
