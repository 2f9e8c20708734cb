"""MPNet: BERT whose positions also score for each other by how far apart they are, in all blocks alike."""

import jax
import jax.numpy as jnp
import numpy as np

from finetune.models.bert import FIXED, INPUT, SIZES, Bert, check, table
from finetune.models.block import Project, Score, dot_product

__all__ = ["FIXED", "INPUT", "SIZES", "STEM", "check", "module"]
STEM = ("embeddings", "relative")
_BUCKETS, _FARTHEST = 32, 128  # in transformers whatever the settings say


class Mpnet(Bert):
    """Text classifier; `relative` holds a score for each bucket of distances and each head."""

    def setup(self) -> None:
        super().setup()
        self.relative = table(_BUCKETS, self.heads, self.dtype, self.param_dtype)

    def score(self, tokens: int) -> Score:
        """Returns content by content, and the score of the distance."""
        distance = np.arange(tokens)[None] - np.arange(tokens)[:, None]  # of the key behind the query
        apart = self.relative(bucket(distance)).transpose(2, 0, 1)[None]  # [1, H, T, T]

        def score(query: jax.Array, key: jax.Array, project: Project) -> jax.Array:
            # Scores are scaled afterwards, and this one is not.
            return dot_product(query, key, project) + apart * jnp.asarray(query.shape[-1] ** 0.5, apart.dtype)

        return score


def bucket(distance: np.ndarray) -> np.ndarray:
    """Returns the bucket of each distance of a key behind its query: exact for near ones, by logarithm for far ones.

    Half of them are of keys in front, half of keys behind (Raffel et al. 2020, as in T5).
    """
    half, exact = _BUCKETS // 2, _BUCKETS // 4
    apart = np.abs(distance)
    share = np.log(np.maximum(apart, 1).astype(np.float32) / exact) / np.log(_FARTHEST / exact)
    far = np.minimum(exact + (share * (half - exact)).astype(np.int32), half - 1)
    return (distance > 0) * half + np.where(apart < exact, apart, far)


module = Mpnet
