"""Pretrained weights: where they are, what architecture they have, and their values under this project's paths.

Each format is a module with two functions of a path: `architecture` -> {"model": name, size: value} and `parameters`
-> {path: array}.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from finetune import assets
from finetune.config import ModelConfig
from finetune.errors import UserError, one_of
from finetune.member.params import matches
from finetune.models.weights import (
    augreg,
    batch_norm,
    efficientnet_pytorch,
    exported,
    from_study,
    huggingface,
    position_grid,
    preprocessor,
    safetensors_file,
    sentence_transformers,
)
from finetune.models.weights.sentence_transformers import Declared
from finetune.storage import files

_FORMATS = {".safetensors": huggingface, ".npz": augreg}  # of single files, by suffix
_PACKAGED = _FORMATS | {".pth": efficientnet_pytorch}  # of assets, whose sha256 is known
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")  # of PyTorch and others
_POSITION = "embeddings/position"  # of a ViT: [rows, columns, width]
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_SHOWN = 5  # leaves an error names before it only counts them


class _Source(NamedTuple):
    format: ModuleType
    path: Path  # of the weights file, or of a work directory

    @property
    def resizing(self) -> str:
        """How position embeddings of images are resized: as those who trained them do."""
        return huggingface.family_of(self.path).resizing if self.format is huggingface else "linear"


def load(config: ModelConfig, expected: Mapping[str, jax.ShapeDtypeStruct], head: str) -> dict[str, np.ndarray]:
    """Returns the weights of every leaf of `expected` outside `head`, in the dtype expected; {} when there are none.

    Position embeddings of a ViT are resized to the expected grid. Raises UserError that lists the leaves which are
    missing, unexpected, of another shape, or no floating point numbers.
    """
    source = _locate(config)
    if source is None:
        return {}
    wanted = {path: leaf for path, leaf in expected.items() if not matches(head, path)}
    found = {path: leaf for path, leaf in source.format.parameters(source.path).items() if not matches(head, path)}
    found = batch_norm.as_state(found, wanted)
    if _POSITION in found and _POSITION in wanted:
        found[_POSITION] = _resized(found[_POSITION], wanted[_POSITION].shape, source.resizing)
    compare(found, wanted, source.path)
    return {path: found[path].astype(leaf.dtype) for path, leaf in wanted.items()}


def architecture(config: ModelConfig) -> dict[str, Any] | None:
    """Returns {"model": name, size: value} of the pretrained weights, None when there are none."""
    source = _locate(config)
    return None if source is None else source.format.architecture(source.path)


def directory(config: ModelConfig) -> Path | None:
    """Returns the directory that holds the pretrained weights, None when there are none."""
    source = _locate(config)
    if source is None:
        return None
    return source.path if source.path.is_dir() else source.path.parent


def tokenizer_file(config: ModelConfig) -> Path | None:
    """Returns the tokenizer.json beside the pretrained weights, None when there is none."""
    beside = directory(config)
    if beside is None or not (beside / "tokenizer.json").is_file():
        return None
    return beside / "tokenizer.json"


def content_hash(config: ModelConfig) -> str:
    """Returns the sha256 (hex) of the weights file, of the hashes of its shards, or of the arrays of a work directory.

    Without weights it is "".
    """
    source = _locate(config)
    if source is None:
        return ""
    if source.path.is_file():
        try:
            hashes = [assets.sha256(file) for file in safetensors_file.files(source.path)]
            return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
        except OSError as error:
            raise UserError(f"cannot read {source.path}: {error.strerror}") from None
    return leaves_hash(source.format.parameters(source.path))


def leaves_hash(leaves: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 (hex) of {path: array}."""
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        digest.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


def declared(config: ModelConfig) -> Declared:
    """Returns the settings that weights come with, of a directory of sentence-transformers, an export or a study."""
    if not config.pretrained or config.pretrained in _packaged():
        return Declared()
    path = files.expanded(config.pretrained)
    root = path if path.is_dir() else path.parent
    if (root / exported.FILE).is_file():
        return exported.declared(root)
    if (root / "checkpoints").is_dir() and (root / "config.json").is_file():
        return from_study.declared(root)
    if (root / sentence_transformers.FILE).is_file():
        return sentence_transformers.declared(root)
    source = _locate(config)
    is_of_images = source is not None and source.format is huggingface and huggingface.family_of(source.path).images
    return _declared_for_images(root) if is_of_images else Declared()


def _declared_for_images(directory: Path) -> Declared:
    """Returns what a directory of transformers says of images and of what is pooled."""
    weights = directory / "model.safetensors"
    pooling = huggingface.family_of(weights).poolings[0]
    if (directory / preprocessor.FILE).is_file():
        return Declared(pooling, binding=False, images=preprocessor.read(directory))
    note = f"{directory} has no {preprocessor.FILE}: pixels are scaled to -1 to 1"
    trained = preprocessor.Preparation(image_size=huggingface.image_size(weights))
    return Declared(pooling, notes=(note,), binding=False, images=trained)


def _packaged() -> dict[str, str]:
    """Returns {name of an asset that holds weights: their file}."""
    return {
        name: file.name
        for name, asset in assets.ASSETS.items()
        for file in asset.members
        if Path(file.path).suffix in _PACKAGED
    }


def _locate(config: ModelConfig) -> _Source | None:
    if not config.pretrained:
        return None
    packaged = _packaged()
    if name := packaged.get(config.pretrained):
        path = assets.path(config.pretrained) / name
        return _Source(_PACKAGED[path.suffix], path)
    path = files.expanded(config.pretrained)
    if not path.exists():
        raise one_of("model.pretrained", config.pretrained, [*packaged, "a path that exists"])
    if path.is_dir():
        return _in_directory(path)
    if path.suffix in _PICKLES:
        raise _pickled(path)
    if path.name == safetensors_file.INDEX:
        return _Source(huggingface, path)
    if path.suffix not in _FORMATS:
        raise UserError(f"model.pretrained is {config.pretrained!r}, allowed for a file: {', '.join(_FORMATS)}")
    return _Source(_FORMATS[path.suffix], path)


def _pickled(path: Path) -> UserError:
    return UserError(
        f"model.pretrained: {path} is a pickle, which can run any code when it is read, allowed: .safetensors, .npz; "
        "convert it where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
        "'model.safetensors')"
    )


def _in_directory(path: Path) -> _Source:
    if (path / exported.FILE).is_file():
        return _Source(exported, path)
    if (path / "checkpoints").is_dir() and (path / "config.json").is_file():
        return _Source(from_study, path)
    if (path / sentence_transformers.FILE).is_file():
        path = sentence_transformers.encoder_directory(path)
    weights = [path / name for name in ("model.safetensors", safetensors_file.INDEX) if (path / name).is_file()]
    if not weights:
        pickles = [file for file in sorted(path.iterdir()) if file.suffix in _PICKLES]
        if pickles:
            raise _pickled(pickles[0])
        raise UserError(
            f"model.pretrained: {path} holds no model.safetensors, allowed: a directory with model.safetensors and "
            "config.json, the work directory of a study, or what finetune.export wrote"
        )
    return _Source(huggingface, weights[0])


def _resized(position: np.ndarray, shape: tuple[int, ...], how: str) -> np.ndarray:
    """Returns `position` [rows, columns, D] interpolated to the grid of `shape`."""
    if position.ndim != 3 or not position.size or position.dtype.name not in _FLOATS or position.shape[:2] == shape[:2]:
        return position
    logging.getLogger(__name__).info("position embeddings resized from %s to %s", position.shape[:2], shape[:2])
    return position_grid.resized(position.astype(np.float32), shape[:2], how)


def compare(found: Mapping[str, np.ndarray], wanted: Mapping[str, jax.ShapeDtypeStruct], source: Path) -> None:
    """Raises UserError that lists the leaves of `found` that are missing, unexpected, misshapen or no floats."""
    shared = [path for path in wanted if path in found]
    complaints = {
        "missing": [path for path in wanted if path not in found],
        "unexpected": [path for path in found if path not in wanted],
        "of another shape": [
            f"{path} {list(found[path].shape)} where {list(wanted[path].shape)} is needed"
            for path in shared
            if found[path].shape != wanted[path].shape
        ],
        "not floating point": [
            f"{path} {found[path].dtype}" for path in shared if found[path].dtype.name not in _FLOATS
        ],
    }
    parts = [f"{len(paths)} {what}: {_first(paths)}" for what, paths in complaints.items() if paths]
    if parts:
        raise UserError(f"weights of {source} do not fit the model: {'; '.join(parts)}")


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
