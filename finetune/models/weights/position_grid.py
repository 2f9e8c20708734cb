"""Position embeddings of a grid, interpolated to another grid as those who trained them do."""

import jax
import numpy as np

_A = -0.75  # of the cubic that PyTorch interpolates with; with antialiasing, as in Pillow, it is -0.5


def resized(position: np.ndarray, shape: tuple[int, ...], how: str) -> np.ndarray:
    """Returns `position` [rows, columns, D] float32 at the grid of `shape`, pixel centres at half-integers.

    how: "linear" or "antialiased cubic", both widened where the grid gets coarser, or PyTorch's "cubic", which is not.
    """
    if how != "cubic":
        method = "bilinear" if how == "linear" else "cubic"
        return np.asarray(jax.image.resize(position, (*shape, position.shape[2]), method))
    rows, columns = (_cubic(old, new) for old, new in zip(position.shape[:2], shape, strict=True))
    return np.einsum("ri,cj,ijd->rcd", rows, columns, position.astype(np.float64)).astype(np.float32)


def _cubic(old: int, new: int) -> np.ndarray:
    """Returns the share [new, old] of each old value in each new one: of four, those beyond the edge as at it."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int) - 1
    shares = np.zeros((new, old))
    for step in range(4):
        apart = np.abs(place - (first + step))
        near = ((_A + 2) * apart - (_A + 3)) * apart**2 + 1
        far = ((apart - 5) * apart + 8) * apart * _A - 4 * _A
        np.add.at(shares, (np.arange(new), np.clip(first + step, 0, old - 1)), np.where(apart <= 1, near, far))
    return shares
