"""Patterns, selections, and the exact masks of MiniLM on an abstract model."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune import models
from finetune.config import ModelConfig
from finetune.errors import UserError
from finetune.member import params
from finetune.member.params import count, decayed_paths, matches, named_parts, partition, trainable_paths
from tests.helpers import tasks


@pytest.mark.parametrize(
    "pattern, path, wanted",
    [
        ("block_1", "block_1/mlp/kernel", True),
        ("block_1", "block_10/mlp/kernel", False),
        ("block_1/", "block_1/mlp/kernel", True),
        ("mlp", "block_1/mlp/kernel", False),
        ("**/mlp", "block_1/mlp/kernel", True),
        ("**/mlp", "block_1/not_mlp/kernel", False),
        ("**/kernel", "kernel", True),
        ("**/kernel", "block_1/mlp/kernel", True),
        ("*/kernel", "block_1/mlp/kernel", False),
        ("*/*/kernel", "block_1/mlp/kernel", True),
        ("block_*/mlp", "block_12/mlp/bias", True),
        ("block_*/mlp", "block_12/attention/mlp", False),
        ("*_1/**/bias", "block_1/attention/query/bias", True),
        ("block_1/**", "block_1/mlp/kernel", True),
        ("block.1", "block_1/mlp/kernel", False),
        ("block_1/mlp/kernel", "block_1/mlp/kernel", True),
        ("block_1/mlp/ker", "block_1/mlp/kernel", False),
        ("block_1/mlp/kernel/more", "block_1/mlp/kernel", False),
        ("[a-z]*", "block_1/mlp/kernel", False),
    ],
)
def test_patterns_compare_whole_components(pattern: str, path: str, wanted: bool) -> None:
    assert matches(pattern, path) is wanted


def test_flatten_and_unflatten_are_inverse() -> None:
    leaves = {"a/b/c": 1, "a/b/d": 2, "e": 3}
    assert params.unflatten(leaves) == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    assert params.flatten(params.unflatten(leaves)) == leaves


def test_partition_parts_every_leaf_once() -> None:
    assert partition({"a": 1, "b": 2, "c": 3}, frozenset({"b"})) == ({"b": 2}, {"a": 1, "c": 3})


def test_matrices_decay_and_vectors_do_not() -> None:
    shapes = {
        name: SimpleNamespace(shape=shape) for name, shape in (("a", (3, 2)), ("b", (2,)), ("c", ()), ("d", (1, 1, 2)))
    }
    assert decayed_paths("matrices", shapes) == {"a", "d"}
    assert decayed_paths("all", shapes) == {"a", "b", "c", "d"}


STEM, BLOCK, HEAD = ({f"{part}/kernel", f"{part}/bias"} for part in ("stem", "block_0", "head"))


@pytest.mark.parametrize(
    "spec, wanted",
    [
        ("all", STEM | BLOCK | HEAD),
        ("head", HEAD),
        ("last:1", BLOCK | HEAD),
        ("first:1", STEM | BLOCK | HEAD),
        ("first:1+!last:1+head", STEM | HEAD),
        ("bias", {"stem/bias", "block_0/bias"} | HEAD),
        ("stem", STEM | HEAD),
        ("stem/kernel", {"stem/kernel"} | HEAD),
        ("head+bias", {"stem/bias", "block_0/bias"} | HEAD),
        (" stem + block_0/bias ", STEM | {"block_0/bias"} | HEAD),
        ("all+!head", STEM | BLOCK),
        ("all+!**/bias", {"stem/kernel", "block_0/kernel", "head/kernel"}),
        ("all+!stem+stem/bias", {"stem/bias"} | BLOCK | HEAD),
        ("stem+!head", STEM),
    ],
)
def test_selections(spec: str, wanted: set[str]) -> None:
    task = tasks.mlp()
    assert trainable_paths(spec, task, params.abstract(task)) == wanted


@pytest.mark.parametrize(
    "spec, line",
    [
        ("", "nothing trains"),
        ("   ", "nothing trains"),
        ("!head", "nothing trains"),
        ("all+!all", "nothing trains"),
        ("stems", "'stems' hits no parameter"),
        ("all+!blocks", "'!blocks' hits no parameter"),
        ("norm", "'norm' hits no parameter"),
        ("last:0", "allowed: last:1 to last:1"),
        ("last:2", "allowed: last:1 to last:1"),
        ("last:x", "allowed: last:1 to last:1"),
        ("last:-1", "allowed: last:1 to last:1"),
        ("last:", "allowed: last:1 to last:1"),
        ("first:2", "'first:2' is no term, allowed: first:1 to first:1"),
    ],
)
def test_selections_that_make_no_sense(spec: str, line: str) -> None:
    task = tasks.mlp()
    with pytest.raises(UserError, match=line):
        trainable_paths(spec, task, params.abstract(task))


PARTS = {"biases": "**/bias", "low": "stem+biases+!head", "later": "stem"}


@pytest.mark.parametrize(
    "spec, wanted",
    [
        ("biases", {"stem/bias", "block_0/bias"} | HEAD),
        ("low", STEM | {"block_0/bias"} | HEAD),
        ("all+!low", {"block_0/kernel"} | HEAD),
        ("last:1+low", STEM | BLOCK | HEAD),
        ("later+!biases", {"stem/kernel", "head/kernel"}),
    ],
)
def test_parts_are_words(spec: str, wanted: set[str]) -> None:
    task = tasks.mlp()
    assert trainable_paths(spec, task, params.abstract(task), PARTS) == wanted


def test_parts_that_make_no_sense() -> None:
    task = tasks.mlp()
    broken = named_parts(["good=stem", "queries = block_*/query", "before=after", "after=stem"])
    assert broken["queries"] == "block_*/query"
    line = "trainable is 'stem.queries', where part 'queries' is 'block_./query': 'block_./query' hits no parameter"
    with pytest.raises(UserError, match=line):
        trainable_paths("stem+queries", task, params.abstract(task), broken)
    with pytest.raises(UserError, match="'after' hits no parameter, allowed: .* good, queries"):
        trainable_paths("before", task, params.abstract(task), broken)
    for text in ("queries", "queries=", "=stem", "a+b=stem", "!a=stem", "last:1=stem", "1=stem"):
        with pytest.raises(UserError, match="allowed: NAME=SPEC"):
            named_parts([text])
    for texts in (["all=stem"], ["a=stem", "a=head"]):
        with pytest.raises(UserError, match="allowed: a name that is new"):
            named_parts(texts)


D, MLP, DEPTH, CLASSES = 384, 1536, 6, 8  # MiniLM-L6, with a head for R8
EMBEDDINGS = (30522 + 512 + 2) * D + 2 * D
BLOCK_SIZE = 4 * (D * D + D) + 2 * D + (D * MLP + MLP) + (MLP * D + D) + 2 * D
HEAD_SIZE = D * CLASSES + CLASSES
BLOCK_BIASES = 4 * D + D + MLP + D + D


@pytest.fixture(scope="module")
def minilm() -> tuple[models.Task, dict[str, jax.ShapeDtypeStruct]]:
    config = ModelConfig(name="bert", pretrained="", width=D, depth=DEPTH, heads=12, mlp_width=MLP)
    example = {"input_ids": jax.ShapeDtypeStruct((128,), jnp.int32), "length": jax.ShapeDtypeStruct((), jnp.int32)}
    task = models.build(config, CLASSES, example)
    return task, params.abstract(task)


@pytest.mark.parametrize(
    "spec, leaves, size",
    [
        ("all", 5 + 16 * DEPTH + 2, EMBEDDINGS + DEPTH * BLOCK_SIZE + HEAD_SIZE),
        ("head", 2, HEAD_SIZE),
        ("last:1", 16 + 2, BLOCK_SIZE + HEAD_SIZE),
        ("last:2", 32 + 2, 2 * BLOCK_SIZE + HEAD_SIZE),
        ("last:6", 96 + 2, 6 * BLOCK_SIZE + HEAD_SIZE),
        ("bias", 1 + 8 * DEPTH + 2, D + DEPTH * BLOCK_BIASES + HEAD_SIZE),
        ("norm", 2 + 4 * DEPTH + 2, 2 * D + DEPTH * 4 * D + HEAD_SIZE),
        ("block_5/attention/query", 2 + 2, D * D + D + HEAD_SIZE),
        ("first:2", 5 + 32 + 2, EMBEDDINGS + 2 * BLOCK_SIZE + HEAD_SIZE),
        ("last:2+norm", 32 + 2 + 4 * 4 + 2, 2 * BLOCK_SIZE + 2 * D + 4 * 4 * D + HEAD_SIZE),
    ],
)
def test_masks_of_minilm(minilm: tuple, spec: str, leaves: int, size: int) -> None:
    task, shapes = minilm
    chosen = trainable_paths(spec, task, shapes)
    trained, frozen = partition(shapes, chosen)
    assert (len(trained), count(trained)) == (leaves, size)
    assert len(frozen) == 103 - leaves
    assert count(trained) + count(frozen) == count(shapes)


def test_minilm_has_its_published_size(minilm: tuple) -> None:
    # 22,713,216 with the pooler, a dense layer that sentence embeddings do not use.
    assert count(minilm[1]) - HEAD_SIZE == 22_713_216 - (D * D + D)


def test_abstract_computes_nothing(minilm: tuple) -> None:
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in minilm[1].values())
    assert minilm[1]["block_5/mlp/up/kernel"].shape == (D, MLP)
    assert minilm[1]["head/kernel"].dtype == np.float32
