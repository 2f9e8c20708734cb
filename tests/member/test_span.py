"""Spans: the loss by hand, the best span by search, and what is right of it as SQuAD's script says."""

import collections
import re
import string

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from finetune.data import answer_spans
from finetune.data.answer_spans import Answer
from finetune.member import span
from finetune.member.objective import make_objective
from tests.helpers import tasks
from tests.helpers.training import EXAMPLES, population, relative

TEXTS = [
    "the cat sat on the mat, and the dog sat",
    "In 1999-2001 a U.S. army of the north (the Union) won",
    "a b a b a b a",
]
ANSWERS = [
    (Answer("the mat", -1), Answer("cat", -1)),
    (Answer("U.S. army", -1), Answer("army of the north", -1), Answer("Union", -1)),
    (Answer("b a b", -1),),
]


def by_script(said, answers):
    """Returns (exact match, F1) as SQuAD's script of version 1.1 compares two texts, the best over answers."""

    def plain(text):
        text = "".join(each for each in text.lower() if each not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def score(answer):
        one, other = plain(said).split(), plain(answer).split()
        same = sum((collections.Counter(one) & collections.Counter(other)).values())
        precision, recall = same / max(len(one), 1), same / max(len(other), 1)
        return 2 * precision * recall / (precision + recall) if same else 0.0

    return max(float(plain(said) == plain(each.text)) for each in answers), max(score(each.text) for each in answers)


def arrays():
    """Returns the texts as if each word were a token, with two tokens before them."""
    spans = [answer_spans.words(each) for each in TEXTS]
    places = np.full((len(TEXTS), 2 + max(map(len, spans))), -1, np.int32)
    for row, of_text in enumerate(spans):
        places[row, 2 : 2 + len(of_text)] = np.arange(len(of_text))
    pairs = [("question", each) for each in TEXTS]
    return spans, {
        name: jnp.asarray(each) for name, each in answer_spans.located(pairs, ANSWERS, places, places).items()
    }


def test_what_is_said_is_judged_as_the_script_does():
    spans, batch = arrays()
    judge = jax.jit(lambda outputs: {name: each(outputs, batch) for name, each in span.METRICS.items()})
    checked = 0
    for start in range(11):
        for end in range(start, 11):
            outputs = np.zeros((*batch["begins"].shape, 2), np.float32)
            outputs[:, min(2 + start, outputs.shape[1] - 1), 0] = outputs[:, min(2 + end, outputs.shape[1] - 1), 1] = 9
            found = judge(jnp.asarray(outputs))
            for row, text in enumerate(TEXTS):
                if end < len(spans[row]):
                    said = text[spans[row][start][0] : spans[row][end][1]]
                    wanted = by_script(said, ANSWERS[row])
                    got = [float(found[name][row]) for name in ("exact_match", "f1")]
                    np.testing.assert_allclose(got, wanted, rtol=1e-6, err_msg=said)
                    checked += 1
    assert checked == 55 + 66 + 28


def test_by_hand():
    assert by_script("a cat", ANSWERS[0]) == (1.0, 1.0)
    assert by_script("army of the", ANSWERS[1]) == (0.0, 0.8)


def test_the_best_span_is_found():
    random = np.random.default_rng(0)
    outputs, first, last = random.normal(size=(4, 50, 2)), *random.integers(-1, 2, (2, 4, 50))
    starts, ends = span.best(jnp.asarray(outputs), jnp.asarray(first), jnp.asarray(last))
    for row in range(4):
        sums = {
            (i, j): outputs[row, i, 0] + outputs[row, j, 1]
            for i in range(50)
            for j in range(i, min(i + span.LONGEST, 50))
            if first[row, i] >= 0 and last[row, j] >= 0
        }
        assert (int(starts[row]), int(ends[row])) == max(sums, key=sums.get)


def test_the_loss_is_the_mean_of_two_cross_entropies():
    random = np.random.default_rng(1)
    outputs = random.normal(size=(2, 6, 2))
    labels = np.array([[-1, 0, 1, 0, 0, -1], [-1, -1, 0, 0, 1, 0]]).T[None].repeat(2, axis=0)
    labels[1] = np.minimum(labels[1], 0)  # an answer that is cut off
    starts, ends = log_softmax(outputs[0, 1:5, 0]), log_softmax(outputs[0, 2:, 1])
    found = span.cross_entropy(jnp.asarray(outputs), jnp.asarray(labels))
    np.testing.assert_allclose(found, [-(starts[1] + ends[2]) / 2, 0], rtol=1e-5)


def test_a_population_equals_solo_runs(float64):
    mlp = tasks.mlp(features=2)

    def apply(params, batch, dropout, keys):  # three tokens of two features, three outputs of which two are read
        tokens = batch["x"].reshape(-1, 3, 2)
        return jnp.stack([mlp.apply(params, {"x": tokens[:, i]}, dropout, keys)[:, :2] for i in range(3)], axis=1)

    def loss(outputs, batch, smoothing):
        at = batch["label"][:, None] == jnp.arange(3)[None]
        return span.cross_entropy(outputs, jnp.stack([at, at], axis=-1).astype(jnp.int32), smoothing)

    task = mlp._replace(apply=apply, loss=loss, metrics={})
    recipe = tasks.make_recipe(task, "all", EXAMPLES, 4, accumulates=True, metric="loss", name="sgd")
    rows = [tasks.row(batch_size=size, learning_rate=rate) for size, rate in ((4, 0.01), (12, 0.05))]
    shared = tasks.make_shared(recipe)
    members, reports = population(rows, recipe, shared)
    for place, row in enumerate(rows):
        alone, told = population([row], recipe, shared)
        np.testing.assert_allclose(reports[-1].metrics["loss"][place], told[-1].metrics["loss"][0], rtol=1e-10)
        for path, leaf in alone.params.items():
            assert relative(members.params[path][place], leaf[0]) < 1e-10, path
    assert make_objective("question_answering").loss.of is span.cross_entropy
