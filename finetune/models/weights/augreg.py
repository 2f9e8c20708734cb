"""Weights of a ViT as "How to train your ViT?" (Steiner et al. 2021, AugReg) publishes them: one .npz of Flax names."""

import logging
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data import memory
from finetune.errors import UserError

_EPSILON = 1e-6  # of the layer norms; not stored in the file
_ATTENTION = "MultiHeadDotProductAttention_1"
_MODULES = {"embedding": "embeddings/patch", "Transformer/encoder_norm": "norm"}
_BLOCK_MODULES = {
    "LayerNorm_0": "attention_norm",
    f"{_ATTENTION}/query": "attention/query",
    f"{_ATTENTION}/key": "attention/key",
    f"{_ATTENTION}/value": "attention/value",
    f"{_ATTENTION}/out": "attention/output",
    "LayerNorm_2": "mlp_norm",
    "MlpBlock_3/Dense_0": "mlp/up",
    "MlpBlock_3/Dense_1": "mlp/down",
}
_CLASS_TOKEN, _POSITION = "cls", "Transformer/posembed_input/pos_embedding"
_IGNORED = re.compile(r"(head|pre_logits)/.*")
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def architecture(path: Path) -> dict[str, Any]:
    """Returns {"model": "vit", size: value} from the shapes in the .npz file `path`.

    Raises UserError for a file that cannot be read or holds no ViT.
    """
    arrays = _read(path)
    first = "Transformer/encoderblock_0"
    patch = _shape(arrays, "embedding/kernel", 4, path)
    query = _shape(arrays, f"{first}/{_ATTENTION}/query/kernel", 3, path)
    up = _shape(arrays, f"{first}/MlpBlock_3/Dense_0/kernel", 2, path)
    blocks = {match[1] for match in map(_BLOCK.fullmatch, arrays) if match}
    return {
        "model": "vit",
        "width": patch[3],
        "depth": len(blocks),
        "heads": query[1],
        "mlp_width": up[1],
        "patch_size": patch[0],
        "epsilon": _EPSILON,
    }


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the .npz file `path`, kernels as [in, out]; heads are left out.

    The position of the class token is added to the token; the other positions get the shape of their grid. A name
    that no ViT has is kept as it is. Raises UserError for a file that cannot be read.
    """
    arrays = _read(path)
    found: dict[str, np.ndarray] = {}
    ignored = [name for name in arrays if _IGNORED.fullmatch(name)]
    if _CLASS_TOKEN in arrays and _POSITION in arrays:
        position, token = arrays.pop(_POSITION), arrays.pop(_CLASS_TOKEN)
        found["embeddings/class_token"], found["embeddings/position"] = _tokens(position, token, path)
    for name in arrays.keys() - set(ignored):
        target = _path(name) or name
        found[target] = _flat(target, arrays[name])
    if ignored:
        logging.getLogger(__name__).info("%s: not used: %s", path, ", ".join(ignored))
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    # The file is opened here so that it is closed when NumPy fails to read it.
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            memory.check_fits(sum(entry.file_size for entry in archive.zip.infolist()), f"weights of {path}")
            return {name: np.asarray(archive[name]) for name in archive.files}
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"cannot read {path} as .npz: {error}") from None
    except (AttributeError, TypeError):  # a single array (.npy) is no archive
        raise UserError(f"cannot read {path} as .npz: it holds no named arrays") from None


def _shape(arrays: dict[str, np.ndarray], name: str, axes: int, path: Path) -> tuple[int, ...]:
    if name not in arrays or arrays[name].ndim != axes:
        raise UserError(f"{path} holds no {name} with {axes} axes, allowed: weights of a ViT under AugReg's names")
    return arrays[name].shape


def _tokens(position: np.ndarray, token: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (class token [D], positions [side, side, D]) from `position` [1, 1 + side², D], `token` [1, 1, D]."""
    side = math.isqrt(max(position.shape[1] - 1, 0)) if position.ndim == 3 else 0
    width = position.shape[-1] if position.ndim else 0
    fits = side > 0 and position.shape == (1, 1 + side * side, width) and token.shape == (1, 1, width)
    if not fits or position.dtype.kind != "f" or token.dtype.kind != "f":
        raise UserError(
            f"{path}: {_POSITION} is {position.dtype} {list(position.shape)} and {_CLASS_TOKEN} {token.dtype} "
            f"{list(token.shape)}, allowed: floating point [1, 1 + side², width] and [1, 1, width]"
        )
    position = position.astype(np.promote_types(position.dtype, np.float32))
    return token[0, 0] + position[0, 0], position[0, 1:].reshape(side, side, width)


def _path(name: str) -> str | None:
    """Returns this project's path of the array `name`, None when a ViT has no such array."""
    module, _, leaf = name.rpartition("/")
    block = _BLOCK.fullmatch(module)
    target = _BLOCK_MODULES.get(block[2]) if block else _MODULES.get(module)
    if target is None:
        return None
    return f"block_{block[1]}/{target}/{leaf}" if block else f"{target}/{leaf}"


def _flat(target: str, array: np.ndarray) -> np.ndarray:
    """Returns `array` with the axes of a kernel merged to [in, out], and those of a bias to [out]."""
    if target.endswith("/bias"):
        return array.reshape(-1)
    if not target.endswith("/kernel") or array.ndim < 2:
        return array
    if target.endswith(("query/kernel", "key/kernel", "value/kernel")):
        return array.reshape(array.shape[0], -1)
    return array.reshape(-1, array.shape[-1])
