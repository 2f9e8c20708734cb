"""The pass over padded texts: cut where that cannot be seen in the features, and whole where it can."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.config import TrunkConfig
from finetune.hosts import processes
from finetune.member.params import abstract
from finetune.models import from_linen
from finetune.models.bert import Bert
from finetune.trials.grid import Trial
from finetune.trunk import feature_pass
from finetune.trunk.choice import Room, choose_trunk
from finetune.trunk.feature_pass import Pass
from finetune.trunk.feature_store import FeatureStore
from tests.helpers import cuts
from tests.helpers.tasks import base_leaves, make_recipe, row

TEXTS, TOKENS = 30, 32
EXAMPLE = {"input_ids": cuts.struct((TOKENS,), jnp.int32), "length": cuts.struct((), jnp.int32)}


@pytest.fixture(autouse=True)
def free_programs(monkeypatch):
    monkeypatch.setattr(feature_pass, "_COMPILE_FLOPS_CPU", 0.0)


def texts():
    """Texts, most of them short, in a split that is padded with token 0."""
    random = np.random.default_rng(0)
    length = np.where(np.arange(TEXTS) % 4 == 0, TOKENS, random.integers(2, 9, TEXTS)).astype(np.int32)
    ids = random.integers(1, 11, (TEXTS, TOKENS)).astype(np.int32)
    ids[np.arange(TOKENS) >= length[:, None]] = 0
    return {"input_ids": ids, "length": length, "label": np.zeros(TEXTS, np.int32)}


class SeesPadding(Bert):
    """A model that takes padding for text."""

    def __call__(self, batch, rate, keys):
        return super().__call__(
            batch | {"length": jnp.full_like(batch["length"], batch["input_ids"].shape[1])}, rate, keys
        )


def run(kind, trainable):
    """Returns (pass, its features of the training split, the same by one call of the trunk on whole texts)."""
    model = kind(**cuts.SIZES, vocabulary=11, positions=TOKENS, token_types=2, epsilon=1e-5, dropout_at="head")
    task = from_linen(model, EXAMPLE, ("embeddings",), cuts.BLOCKS, "head")
    split, base = texts(), base_leaves(task)
    recipe = make_recipe(task, trainable, examples=TEXTS, micro_batch=2)
    trials, room = [Trial(row(), {})] * 2, Room(10**12, 10**12)
    trunk = choose_trunk(TrunkConfig(mode="cached"), recipe, abstract(task), [split] * 3, trials, room)
    trunk_pass = Pass([trunk], base, [split] * 3, 4, FeatureStore(Path(), 0))
    batches = []
    features, *_ = trunk_pass.run(lambda: batches.append(1))
    assert len(batches) == trunk_pass.batches
    return trunk_pass, features, jax.jit(trunk.train.trunk)(base, split)


def lengths_run(trunk_pass):
    return {positions for number in range(3) for _, positions in trunk_pass._batches(number)}


def test_texts_are_cut_and_their_features_stay():
    trunk_pass, features, expected = run(Bert, "head")
    assert lengths_run(trunk_pass) == {8, TOKENS}
    assert not trunk_pass.refused
    for name, whole in expected.items():
        np.testing.assert_allclose(features[name], whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def test_splits_that_lack_the_same_features_share_programs():
    assert len(run(Bert, "head")[0]._programs) == 2  # one a length


def test_texts_stay_whole_where_another_process_says_so(monkeypatch):
    class Two:
        def from_first(self, about, word):
            return word

        def of_all(self, about, word):
            return [word, "features of a text depend on its padding"]

    monkeypatch.setattr(processes, "_here", Two())
    trunk_pass, _, _ = run(Bert, "head")
    assert lengths_run(trunk_pass) == {TOKENS}


@pytest.mark.parametrize(
    ("kind", "trainable", "reason"), [(SeesPadding, "head", "padding"), (Bert, "last:1", "shapes")]
)
def test_texts_stay_whole_where_cutting_would_show(kind, trainable, reason):
    trunk_pass, features, expected = run(kind, trainable)
    assert lengths_run(trunk_pass) == {TOKENS}
    assert reason in trunk_pass.refused
    for name, whole in expected.items():
        np.testing.assert_allclose(features[name], whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())
