"""Weights of classes, against scikit-learn's and by hand."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from finetune.data.class_weights import weights
from finetune.errors import UserError

CLASSES = ("ham", "spam=not", "spam")


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice(3, 50, p=[0.7, 0.2, 0.1])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = weights(("balanced",), labels, CLASSES)
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(found[labels].mean(), 1)


def test_a_table_names_some_classes():
    found = weights(("spam=4", "spam=not=0.5"), np.array([0, 1, 2]), CLASSES)
    assert found.tolist() == [1, 0.5, 4]


@pytest.mark.parametrize(
    "given, message",
    [
        (("balanced", "spam=2"), "holds 'balanced', allowed: balanced alone, or CLASS=WEIGHT"),
        (("spma=2",), "class in loss.class_weights is 'spma', allowed: ham.*did you mean 'spam'"),
        (("spam=0",), "holds 'spam=0', allowed after the =: a number above 0"),
        (("spam=much",), "a number above 0"),
        (("spam=4", "ham=1", "spam=2"), "holds 'spam=2', allowed: 'spam' once"),
    ],
)
def test_other_weights_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        weights(given, np.array([0, 1, 2]), CLASSES)
