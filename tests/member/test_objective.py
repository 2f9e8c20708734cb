"""Loss, penalties and metrics against formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from finetune.errors import UserError
from finetune.member.metric import accuracy
from finetune.member.objective import (
    Target,
    binary_cross_entropy,
    cross_entropy,
    emphasis,
    in_units,
    make_objective,
    penalty,
    token_cross_entropy,
)
from tests.helpers import formulas, tasks


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_that_of_smoothed_one_hot_targets(smoothing: float) -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(7, 4)), random.integers(4, size=7)
    wanted = -(formulas.targets(labels, 4, smoothing) * formulas.log_softmax(logits)).sum(axis=1)
    got = cross_entropy(jnp.asarray(logits), jnp.asarray(labels, jnp.uint8), smoothing)
    np.testing.assert_allclose(got, wanted, rtol=2e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_emphasis_is_weight_times_a_power_of_what_is_missing(gamma: float) -> None:
    random = np.random.default_rng(1)
    logits, labels, weights = random.normal(size=(7, 4)), random.integers(4, size=7), np.array([1.0, 0.5, 3.0, 2.0])
    missing = 1 - np.exp(formulas.log_softmax(logits))[np.arange(7), labels]
    for given, factor in ((None, 1.0), (jnp.asarray(weights), weights[labels])):
        found = emphasis(jnp.asarray(logits), jnp.asarray(labels), given, jnp.asarray(gamma))
        np.testing.assert_allclose(found, factor * missing**gamma, rtol=2e-6)


def test_the_gradient_of_the_focal_loss_is_that_of_its_paper() -> None:
    # Lin et al. 2017, appendix B, of two classes whose logits differ by x: (1 - p)^g (g p log p + p - 1).
    x, gamma = jnp.array([-3.0, 0.2, 40.0]), jnp.asarray(2.0)

    def loss(x: jax.Array) -> jax.Array:
        logits, labels = jnp.stack([jnp.zeros_like(x), x], axis=1), jnp.ones(len(x), jnp.int32)
        return (emphasis(logits, labels, None, gamma) * cross_entropy(logits, labels)).sum()

    p = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    np.testing.assert_allclose(jax.grad(loss)(x), (1 - p) ** 2 * (2 * p * np.log(p) + p - 1), rtol=1e-5, atol=1e-30)


def test_cross_entropy_by_hand() -> None:
    # Probabilities 3/4 and 1/4 for the classes; the label is the second.
    loss = cross_entropy(jnp.log(jnp.array([[3.0, 1.0]])), jnp.array([1]), 0.5)
    np.testing.assert_allclose(loss, [0.75 * np.log(4) + 0.25 * np.log(4 / 3)], rtol=1e-6)


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    loss = cross_entropy(jnp.array([[1e30, 0.0], [0.0, 1e30]]), jnp.array([0, 0]))
    np.testing.assert_allclose(loss, [0.0, 1e30], rtol=1e-6)


def test_accuracy_is_one_where_the_largest_logit_is_the_labels() -> None:
    logits = jnp.array([[1.0, 2.0, 0.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(accuracy(logits, jnp.array([1, 2, 2])), [1.0, 0.0, 1.0])


PARAMS = {
    "block/kernel": np.array([[1.0, -2.0], [0.5, 0.0]]),
    "block/bias": np.array([3.0, -1.0]),
    "head/kernel": np.array([[2.0], [-4.0]]),
}
PRETRAINED = {"block/kernel": np.array([[0.0, -2.0], [1.5, 1.0]]), "block/bias": np.array([1.0, -1.0])}
DECAYED = frozenset({"block/kernel", "head/kernel"})


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({}, 0.0),
        ({"l1": 2.0}, 2.0 * (3.5 + 6.0)),
        ({"l2": 3.0}, 1.5 * (1 + 4 + 0.25 + 4 + 16)),
        # Distances: kernel 1, 0, -1, -1; bias 2, 0; the head has no pretrained weights.
        ({"l2_sp": 5.0}, 2.5 * (3.0 + 4.0)),
        ({"l1": 2.0, "l2": 3.0, "l2_sp": 5.0}, 19.0 + 37.875 + 17.5),
    ],
)
def test_penalty_by_hand(changes: dict[str, float], wanted: float) -> None:
    arrays = [{path: jnp.asarray(leaf) for path, leaf in leaves.items()} for leaves in (PARAMS, PRETRAINED)]
    np.testing.assert_allclose(penalty(*arrays, tasks.scalars(**changes), DECAYED), wanted, rtol=1e-6)


def test_binary_cross_entropy_is_scikit_learns_with_smoothed_targets() -> None:
    random = np.random.default_rng(2)
    logits, labels = random.normal(0, 2, (5, 3)), random.integers(0, 2, (5, 3))
    found = binary_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.float32), 0.2)
    shares = 1 / (1 + np.exp(-logits))
    targets = np.where(labels == 1, 0.9, 0.1)
    expected = -(targets * np.log(shares) + (1 - targets) * np.log(1 - shares)).mean(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    plain = binary_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.float32))
    np.testing.assert_allclose(plain.mean(), log_loss(labels.ravel(), shares.ravel()), rtol=1e-5)


def test_a_regression_is_trained_on_standardised_targets_and_told_in_their_units() -> None:
    target = Target(mean=40.0, scale=5.0)
    task = in_units(tasks.mlp()._replace(apply=lambda params, batch, dropout, keys: batch["x"]), target)
    x, labels = np.float32([[0.5], [-1.0]]), np.float32([45.0, 35.0])
    outputs = task.apply({}, {"x": jnp.asarray(x)}, 0.0, None)
    np.testing.assert_allclose(outputs[:, 0], [42.5, 35.0])
    objective = make_objective("regression", "rmse", scale=target.scale)
    losses = objective.loss(outputs, {"label": jnp.asarray(labels)}, jnp.zeros(()))
    np.testing.assert_allclose(losses, (x[:, 0] - (labels - 40) / 5) ** 2, atol=1e-6)


def test_a_task_reports_its_usual_metrics_and_those_asked_for() -> None:
    assert list(make_objective("regression", "loss").metrics) == ["rmse", "spearman"]
    assert list(make_objective("classification", "auc", ("matthews",)).metrics) == ["accuracy", "matthews", "auc"]
    with pytest.raises(UserError, match="evaluation.metric is 'accuracy', allowed: loss, pearson, rmse, spearman"):
        make_objective("regression", "accuracy")


def test_token_cross_entropy_is_the_mean_over_the_labelled_tokens_of_an_example() -> None:
    logits = np.random.default_rng(5).normal(0, 2, (3, 4, 3))
    labels = np.array([[0, -1, 2, 1], [-1, 1, -1, -1], [-1, -1, -1, -1]])
    found = token_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    first = log_loss(labels[0, [0, 2, 3]], shares[0, [0, 2, 3]], labels=[0, 1, 2])
    np.testing.assert_allclose(found, [first, -np.log(shares[1, 1, 1]), 0], rtol=1e-5)
