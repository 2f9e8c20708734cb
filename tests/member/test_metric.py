"""Metrics against scikit-learn, on one split and through the programs of populations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from finetune.errors import UserError
from finetune.member.epoch import make_order
from finetune.member.metric import CLASSIFICATION, MULTILABEL, REGRESSION, TOKENS, Metric, as_metric, choose
from finetune.member.step import Recipe
from finetune.population.feed import fed, from_host
from finetune.population.parallel import BatchOverDevices, MembersOverDevices, OneByOne, OneDevice, padded_size
from finetune.population.programs import Programs, make_programs
from finetune.trials import hparams
from tests.helpers import tasks
from tests.helpers.training import VALIDATION

SPLIT = ("macro_f1", "matthews", "auc")


def expected(name: str, outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns what scikit-learn says."""
    found = outputs.argmax(axis=1)
    if name == "macro_f1":
        return sklearn_metrics.f1_score(labels, found, average="macro", zero_division=0)
    if name == "matthews":
        return sklearn_metrics.matthews_corrcoef(labels, found)
    if outputs.shape[1] == 2:
        return sklearn_metrics.roc_auc_score(labels, outputs[:, 1] - outputs[:, 0])
    shares = np.asarray(jax.nn.softmax(outputs))
    return sklearn_metrics.roc_auc_score(labels, shares, multi_class="ovr", average="macro")


def draw(classes: int, examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns outputs with many ties, and labels that hold every class."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, examples - classes)])
    return random.integers(0, 3, (examples, classes)).astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", SPLIT)
def test_named_metrics_equal_scikit_learn_with_ties_and_padding(name: str, classes: int) -> None:
    of = jax.jit(jax.vmap(as_metric(CLASSIFICATION[name]).of, in_axes=(0, 0, None)))
    pairs = [draw(classes, 50, seed) for seed in range(3)]
    padding = draw(classes, 7, 9)
    outputs, labels = (np.stack([np.concatenate([pair[i], padding[i]]) for pair in pairs]) for i in (0, 1))
    found = of(outputs, labels, np.repeat([1.0, 0.0], [50, 7]).astype(np.float32))
    np.testing.assert_allclose(found, [expected(name, *pair) for pair in pairs], rtol=1e-5)


@pytest.mark.parametrize("name", ["rmse", "spearman", "pearson"])
def test_metrics_of_numbers_equal_scikit_learn_and_scipy_with_ties_and_padding(name: str) -> None:
    random = np.random.default_rng(3)
    outputs = np.round(random.normal(50, 3, (57, 1))).astype(np.float32)
    labels = np.round(outputs[:, 0] + random.normal(0, 3, 57)).astype(np.float32)
    weight = np.repeat([1.0, 0.0], [50, 7]).astype(np.float32)
    wanted = {
        "rmse": sklearn_metrics.root_mean_squared_error(labels[:50], outputs[:50, 0]),
        "spearman": stats.spearmanr(labels[:50], outputs[:50, 0]).statistic,
        "pearson": stats.pearsonr(labels[:50], outputs[:50, 0]).statistic,
    }[name]
    of = as_metric(REGRESSION[name]).of
    np.testing.assert_allclose(of(outputs, labels, weight), wanted, rtol=1e-5)
    assert as_metric(REGRESSION[name]).larger_is_better == (name != "rmse")
    if name != "rmse":
        assert of(np.full_like(outputs, 0.1), labels, weight) == 0
    if name == "pearson":  # of numbers so large that their squares are not
        np.testing.assert_allclose(of(outputs * 1e30, labels, weight), wanted, rtol=1e-5)


def test_metrics_of_several_labels_equal_scikit_learn_with_ties_and_padding() -> None:
    random = np.random.default_rng(4)
    outputs = random.integers(-2, 4, (57, 4)).astype(np.float32)
    labels = (random.random((57, 4)) < [0.5, 0.3, 0.8, 0.0]).astype(np.float32)
    outputs[:, 3] = -1  # a class without label and prediction
    weight = np.repeat([1.0, 0.0], [50, 7]).astype(np.float32)
    true, found = labels[:50], outputs[:50] > 0
    wanted = {
        "micro_f1": sklearn_metrics.f1_score(true, found, average="micro"),
        "macro_f1": sklearn_metrics.f1_score(true, found, average="macro", zero_division=0),
        "auc": sklearn_metrics.roc_auc_score(true[:, :3], outputs[:50, :3], average="macro"),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(as_metric(MULTILABEL[name]).of(outputs, labels, weight), value, rtol=1e-5)
    right = as_metric(MULTILABEL["accuracy"]).of(outputs[:50], {"label": true})
    np.testing.assert_allclose(right.mean(), sklearn_metrics.accuracy_score(true, found), rtol=1e-6)


def test_metrics_of_tokens_leave_out_those_without_label() -> None:
    outputs, labels = draw(3, 60, 5)
    labelled = np.random.default_rng(6).random(60) < 0.6
    true, found = labels[:45][labelled[:45]], outputs.argmax(axis=1)[:45][labelled[:45]]
    wanted = {
        "accuracy": sklearn_metrics.accuracy_score(true, found),
        "macro_f1": sklearn_metrics.f1_score(true, found, average="macro"),
        "matthews": sklearn_metrics.matthews_corrcoef(true, found),
    }
    arguments = outputs.reshape(12, 5, 3), np.where(labelled, labels, -1).reshape(12, 5), np.repeat([1.0, 0.0], [9, 3])
    for name, value in wanted.items():
        np.testing.assert_allclose(as_metric(TOKENS[name]).of(*arguments), value, rtol=1e-5)


def test_a_class_that_does_not_occur_does_not_count() -> None:
    outputs, labels = draw(3, 40, 1)
    wide, ones = np.pad(outputs, ((0, 0), (0, 1)), constant_values=-9.0), np.ones(40, np.float32)
    for name in ("macro_f1", "matthews"):
        of = as_metric(CLASSIFICATION[name]).of
        np.testing.assert_allclose(of(wide, labels, ones), expected(name, outputs, labels), rtol=1e-5)


def test_where_predictions_or_labels_are_constant_nothing_is_known() -> None:
    outputs, ones = np.tile(np.float32([0, 1, 0]), (6, 1)), np.ones(6, np.float32)
    same, varied = np.zeros(6, np.int32), np.arange(6, dtype=np.int32) % 3
    assert CLASSIFICATION["matthews"].of(outputs, varied, ones) == 0  # type: ignore[union-attr]
    assert CLASSIFICATION["auc"].of(outputs, varied, ones) == 0.5  # type: ignore[union-attr]
    assert CLASSIFICATION["auc"].of(outputs[:, :2], same, ones) == 0.5  # type: ignore[union-attr]


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'mathews', allowed: .*did you mean 'matthews'"):
        choose(CLASSIFICATION, ("accuracy", "mathews"))


def _distance(outputs: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """A user's own metric: how far the weighted mean of the first output lies from 0; smaller is better."""
    del labels
    return jnp.abs((outputs[:, 0] * weight).sum() / weight.sum())


METRICS = {**CLASSIFICATION, "distance": Metric(_distance, of_split=True, larger_is_better=False)}
ROWS = [tasks.row(learning_rate=0.01 * (i + 1), seed=i) for i in range(8)]


@functools.cache
def recipe(metric: str = "accuracy") -> Recipe:
    return tasks.make_recipe(tasks.mlp()._replace(metrics=METRICS), "all", 26, 4, metric=metric)


def found(programs: Programs, layout: OneDevice, batch: int, rows: list[Any]) -> tuple[Any, Any, Any]:
    """Returns (members, report, test metrics) of members at their start, judged in batches of `batch` examples."""
    shared, split = layout.put_all((tasks.make_shared(recipe()), tasks.data(VALIDATION)))
    members = programs.init(shared, hparams.stack(rows, padded_size(len(rows), layout)))
    order = make_order(np.arange(VALIDATION), batch)
    rest = layout.put_order(order), np.int32(len(order.examples))
    members, report = programs.validate(members, shared, split, *rest, np.int32(1))
    return programs.fetch(members), report, programs.test(members, shared, split, *rest)


def check(programs: Programs, layout: OneDevice, batch: int, metric: str, rows: list[Any]) -> None:
    members, report, test = found(programs, layout, batch, rows)
    split = tasks.data(VALIDATION)
    for i in range(len(rows)):
        params = jax.tree.map(lambda leaf: leaf[i], members.params)  # noqa: B023
        outputs = np.asarray(recipe().evaluating_forward(params, {}, split, 0.0, None))
        for name in SPLIT:
            wanted = expected(name, outputs, split["label"])
            np.testing.assert_allclose(report.metrics[name][i], wanted, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(test[name][i], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(report.metrics["distance"][i], abs(outputs[:, 0].mean()), rtol=1e-5)
        sign = -1 if metric == "distance" else 1
        np.testing.assert_allclose(report.best_value[i], sign * report.metrics[metric][i], rtol=1e-6)


@pytest.mark.parametrize("batch, metric", [(4, "macro_f1"), (VALIDATION, "distance")])
def test_members_on_one_device(batch: int, metric: str) -> None:
    check(make_programs(recipe(metric), OneDevice(), True), OneDevice(), batch, metric, ROWS)


def test_members_one_after_the_other() -> None:
    check(make_programs(recipe("auc"), OneByOne(), True), OneByOne(), 3, "auc", ROWS[:2])


def test_members_over_devices() -> None:
    layout = MembersOverDevices(jax.local_devices())
    check(make_programs(recipe("auc"), layout, True), layout, 4, "auc", ROWS)


def test_a_batch_over_devices() -> None:
    layout = BatchOverDevices(jax.local_devices())
    check(make_programs(recipe("distance"), layout, True), layout, 6, "distance", ROWS[:2])


@pytest.mark.parametrize("mode, rows", [("vmap", ROWS), ("loop", ROWS[:2])])
@pytest.mark.parametrize("kind", [OneDevice, lambda: MembersOverDevices(jax.local_devices())])
def test_batches_that_are_handed(mode: str, rows: list[Any], kind: Any) -> None:
    layout = OneByOne() if mode == "loop" else kind()
    whole = make_programs(recipe("matthews"), layout, False)
    check(fed(whole, recipe("matthews"), layout, from_host(layout)), layout, 4, "matthews", rows)
