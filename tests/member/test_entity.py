"""The F1 of entities against counts by hand and against conlleval's rules as its script states them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.errors import UserError
from finetune.member import entity
from finetune.member.objective import make_objective, usual_metric
from tests.helpers import tasks

TAGS = ("B-per", "I-loc", "O", "B-loc", "I-per")


def outputs_of(rows):
    """Returns outputs [N, T, C] whose largest is at each of `rows` [N, T]."""
    return jax.nn.one_hot(np.array(rows), len(TAGS), dtype=jnp.float32)


def score(true, found, width=6, weight=None):
    """Returns the F1 of rows of tags, given as texts; a dash in `true` is a token that is no word."""
    index = {name: place for place, name in enumerate(TAGS)} | {"-": -1}
    labels, rows = np.full((len(true), width), -1, np.int32), np.zeros((len(true), width), np.int32)
    for row, (of_true, of_found) in enumerate(zip(true, found, strict=True)):
        labels[row, : len(of_true.split())] = [index[tag] for tag in of_true.split()]
        rows[row, : len(of_found.split())] = [max(index[tag], 0) for tag in of_found.split()]
    weight = np.ones(len(true), np.float32) if weight is None else np.array(weight, np.float32)
    return float(jax.jit(entity.f1(TAGS).of)(outputs_of(rows), labels, weight))


@pytest.mark.parametrize(
    "true, found, wanted",
    [
        # Two of three are found, and two of two are right: 2·2 / (3 + 2).
        (["B-per I-per O B-loc", "B-loc O"], ["B-per I-per O B-loc", "O O"], 4 / 5),
        # The type is wrong; the last word is missing; one word too many: none is right.
        (["B-per I-per"], ["B-loc I-loc"], 0),
        (["B-per I-per"], ["B-per O"], 0),
        (["B-per O"], ["B-per I-per"], 0),
        # Two neighbours of one type are two; read as one they are none.
        (["B-per B-per"], ["B-per I-per"], 0),
        (["B-per B-per"], ["B-per B-per"], 1),
        # An I that goes on with nothing of its type starts: after O, at the front, and after another type.
        (["B-loc I-loc"], ["I-loc I-loc"], 1),
        (["O B-per"], ["O I-per"], 1),
        (["B-loc B-per"], ["B-loc I-per"], 1),
        (["B-loc I-loc B-per"], ["B-loc I-loc I-per"], 1),
        # Nothing there and nothing found.
        (["O O"], ["O O"], 0),
        # Tokens that are no words neither part an entity nor count, whatever is said of them.
        (["- B-per - I-per -"], ["O B-per B-loc I-per B-loc"], 1),
        (["B-per - O"], ["B-per I-per O"], 1),
    ],
)
def test_by_hand(true, found, wanted):
    assert score(true, found) == pytest.approx(wanted)


def test_padding_does_not_count():
    assert score(["B-per", "B-loc"], ["B-per", "O"], weight=[1, 0]) == 1


def chunks(tags):
    """Returns {(first, last, type)} by the rules of conlleval: startOfChunk and endOfChunk."""
    found, start, before = set(), None, ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        kind, _, name = tag.partition("-")
        ends = before[0] != "O" and (kind in "BO" or name != before[1])
        starts = kind == "B" or (kind == "I" and (before[0] == "O" or name != before[1]))
        if ends:
            found.add((start, place - 1, before[1]))
        if starts:
            start = place
        before = kind, name
    return found


def test_tags_at_random_by_the_rules_of_conlleval():
    random = np.random.default_rng(0)
    true, found = random.integers(0, 5, (2, 200, 9))
    labelled = random.random((200, 9)) < 0.8
    pairs = [
        [chunks([TAGS[tag] for tag, is_word in zip(tags, words, strict=True) if is_word]) for tags in (a, b)]
        for a, b, words in zip(true, found, labelled, strict=True)
    ]
    right = sum(len(a & b) for a, b in pairs)
    wanted = 2 * right / sum(len(a) + len(b) for a, b in pairs)
    assert right > 50
    labels = np.where(labelled, true, -1).astype(np.int32)
    members = jnp.stack([outputs_of(found), outputs_of(true)]).astype(jnp.bfloat16)
    got = jax.vmap(entity.f1(TAGS).of, (0, None, None))(members, labels, np.ones(200, np.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [wanted, 1], rtol=1e-6)


def test_which_tags_are_iob():
    assert entity.is_iob(TAGS)
    assert entity.is_iob(("I-a", "O"))
    for tags in (("O", "NOUN"), ("O",), ("B", "I", "O"), ("B-", "O"), ("B-a", "S-a", "O")):
        assert not entity.is_iob(tags)


def test_where_tags_are_iob_taggers_are_chosen_on_entities():
    metrics = make_objective("tokens", classes=TAGS).metrics
    assert list(metrics) == ["accuracy", "macro_f1", "entity_f1"]
    assert usual_metric("tokens", metrics) == "entity_f1"
    metrics = make_objective("tokens", classes=("NOUN", "VERB")).metrics
    assert usual_metric("tokens", metrics) == "accuracy"
    with pytest.raises(UserError, match="entity_f1, allowed where every tag is O, B-TYPE or I-TYPE; tags here: NOUN"):
        make_objective("tokens", "entity_f1", classes=("NOUN", "VERB"))
    with pytest.raises(UserError, match="'entity_f1', allowed: accuracy, auc, loss, macro_f1"):
        make_objective("multilabel", "entity_f1", classes=("a", "b"))
    assert usual_metric("multilabel", make_objective("multilabel").metrics) == "micro_f1"
    assert usual_metric("regression", make_objective("regression").metrics) == "rmse"
    assert usual_metric("classification", tasks.mlp().metrics) == "accuracy"
