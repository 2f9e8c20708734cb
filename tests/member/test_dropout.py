import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.member.dropout import dropout

KEYS = jax.random.split(jax.random.key(0), 16)


def test_survivors_are_scaled_and_their_share_is_one_minus_the_rate():
    x = jnp.ones((16, 50, 25))
    dropped = np.asarray(dropout(x, 0.2, KEYS, 1))
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1.25)}
    # Share of a binomial: 6 standard deviations of sqrt(0.2 · 0.8 / 20000).
    assert (dropped == 0).mean() == pytest.approx(0.2, abs=6 * (0.16 / dropped.size) ** 0.5)


def test_mask_belongs_to_the_example():
    x = jnp.ones((16, 40))
    order = np.random.default_rng(0).permutation(16)
    whole = np.asarray(dropout(x, 0.5, KEYS, 7))
    np.testing.assert_array_equal(dropout(x, 0.5, KEYS[order], 7), whole[order])
    np.testing.assert_array_equal(dropout(x[3:5], 0.5, KEYS[3:5], 7), whole[3:5])
    assert (whole[0] != whole[1]).any()


def test_sites_differ():
    x = jnp.ones((16, 40))
    assert (dropout(x, 0.5, KEYS, 1) != dropout(x, 0.5, KEYS, 2)).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rate_zero_and_no_keys_leave_the_input_bit_for_bit(dtype):
    x = jax.random.normal(jax.random.key(1), (16, 33)).astype(dtype)
    for same in (dropout(x, 0.0, KEYS, 1), dropout(x, jnp.float32(0), KEYS, 1), dropout(x, 0.5, None, 1)):
        assert same.dtype == dtype
        np.testing.assert_array_equal(np.asarray(same, np.float32), np.asarray(x, np.float32))


def test_rate_is_traced():
    traces = []

    @jax.jit
    def run(rate):
        traces.append(rate)
        return dropout(jnp.ones((16, 40)), rate, KEYS, 1)

    shares = [float((run(rate) == 0).mean()) for rate in (0.0, 0.1, 0.9)]
    assert len(traces) == 1
    assert shares[0] == 0 < shares[1] < 0.3 < 0.7 < shares[2]


def test_gradient_is_the_scaled_mask():
    x = jax.random.normal(jax.random.key(1), (16, 8))
    gradient = jax.grad(lambda x: dropout(x, 0.5, KEYS, 1).sum())(x)
    np.testing.assert_array_equal(gradient, np.where(np.asarray(dropout(x, 0.5, KEYS, 1)) == 0, 0, 2))
