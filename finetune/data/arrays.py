"""Arrays of an .npz file: x_train and y_train, and optionally the same for validation and test."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finetune.data import memory
from finetune.data.source import SPLITS, Examples, Source, split_of, unlabelled
from finetune.errors import UserError, one_of

_UINT8_MAX = 255


def read(file: Path, task: str = "classification") -> Source:
    """Returns images [H, W, C] uint8 or float32 (x_* has 3 or 4 axes), or feature vectors [D] float32 (2 axes).

    A test split without y_test is left out. Classes are the whole numbers of y_*, in their order; for multilabel y_* is
    [N, C] of 0 and 1, and classes are the columns; for regression it holds any numbers [N]. Raises UserError for a
    damaged file, pickled objects, unknown or missing arrays, shapes that do not agree, images of whole numbers outside
    0..255, values that are not finite, and labels that are not whole numbers of 0 or more.
    """
    arrays = _load(file, [f"{letter}_{split}" for split in SPLITS for letter in "xy"])
    notes = []
    if "x_test" in arrays and "y_test" not in arrays:
        del arrays["x_test"]
        notes.append(unlabelled(f"x_test of {file}"))
    present = [split for split in SPLITS if f"x_{split}" in arrays or f"y_{split}" in arrays]
    for split in present:
        if not {f"x_{split}", f"y_{split}"} <= arrays.keys():
            raise UserError(f"{file} lacks x_{split} or y_{split}, present: {', '.join(arrays)}")
    inputs = {split: _inputs(file, f"x_{split}", arrays[f"x_{split}"]) for split in present}
    _check_agreement(file, inputs)
    if task != "classification":
        read_labels = _numbers if task == "regression" else _columns
        found = {split: read_labels(file, f"y_{split}", arrays[f"y_{split}"], len(inputs[split])) for split in present}
        order = tuple(map(str, range(arrays[f"y_{present[0]}"].shape[1]))) if task == "multilabel" else ()
        return Source("array", {split: Examples(inputs[split], found[split]) for split in present}, order, tuple(notes))
    labels = {split: _labels(file, f"y_{split}", arrays[f"y_{split}"], len(inputs[split])) for split in present}
    numbers = {number for split in present for number in labels[split]}
    splits = {split: Examples(inputs[split], [str(number) for number in labels[split]]) for split in present}
    return Source("array", splits, tuple(map(str, sorted(numbers))), tuple(notes))


def read_inputs(file: Path) -> np.ndarray:
    """Returns the one array of a file, x, as `read` returns inputs; raises UserError as it does."""
    return _inputs(file, "x", _load(file, ["x"])["x"])


def _load(file: Path, allowed: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(file) as archive:
            stored = {name.removesuffix(".npy"): _canonical(name.removesuffix(".npy")) for name in archive.namelist()}
            memory.check_fits(sum(entry.file_size for entry in archive.infolist()), f"arrays of {file}")
        for name, wanted in stored.items():
            if wanted not in allowed:
                raise one_of(f"array in {file}", name, allowed)
            if list(stored.values()).count(wanted) > 1:
                raise UserError(f"{file} holds {wanted} under two names, one of them {name!r}, allowed: one")
        with np.load(file, allow_pickle=False) as archive:
            return {wanted: np.asarray(archive[name]) for name, wanted in stored.items()}
    except UserError:
        raise
    # RuntimeError: a damaged header can ask for encryption or an unknown compression.
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"{file} is not a whole .npz file of plain arrays: {error}") from error


def _canonical(name: str) -> str:
    """Returns the name of an array with that of its split in full."""
    letter, underscore, split = name.partition("_")
    return letter + underscore + split_of(split)


def _inputs(file: Path, name: str, x: np.ndarray) -> np.ndarray:
    """Returns `x` as [N, H, W, C] or [N, D]."""
    if x.dtype.kind not in "iuf" or x.ndim not in (2, 3, 4):
        raise UserError(
            f"{name} of {file} is {x.dtype} with {x.ndim} axes, allowed: numbers [N, H, W, C], [N, H, W] or [N, D]"
        )
    if not x.size:
        raise UserError(f"{name} of {file} has shape {list(x.shape)}, allowed: one example or more, none empty")
    images = x.ndim > 2
    if images and x.dtype.kind in "iu":
        if x.min() < 0 or x.max() > _UINT8_MAX:
            raise UserError(f"{name} of {file} has values {x.min()} to {x.max()}, allowed for whole numbers: 0 to 255")
        x = x.astype(np.uint8)
    else:
        with np.errstate(over="ignore"):
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise UserError(f"{name} of {file} has values that are not finite in float32")
    return x[..., np.newaxis] if x.ndim == 3 else x


def _labels(file: Path, name: str, y: np.ndarray, count: int) -> list[int]:
    if y.dtype.kind not in "iu":
        raise UserError(f"{name} of {file} is {y.dtype}, allowed: whole numbers")
    if y.shape != (count,):
        raise UserError(f"{name} of {file} has shape {list(y.shape)}, allowed: [{count}] as the examples are")
    if y.min() < 0:
        raise UserError(f"{name} of {file} has label {y.min()}, allowed: 0 or more")
    return y.tolist()


def _numbers(file: Path, name: str, y: np.ndarray, count: int) -> list[float]:
    """Returns the targets of a regression."""
    if y.dtype.kind not in "iuf" or y.shape != (count,):
        raise UserError(f"{name} of {file} is {y.dtype} {list(y.shape)}, allowed for regression: numbers [{count}]")
    return y.tolist()


def _columns(file: Path, name: str, y: np.ndarray, count: int) -> list[tuple[str, ...]]:
    """Returns the names of the columns that hold a 1, for each example."""
    if y.dtype.kind not in "biuf" or y.ndim != 2 or len(y) != count or not np.isin(y, (0, 1)).all():
        raise UserError(
            f"{name} of {file} is {y.dtype} {list(y.shape)}, allowed for multilabel: 0 and 1, [{count}, classes]"
        )
    return [tuple(map(str, np.flatnonzero(row))) for row in y]


def _check_agreement(file: Path, inputs: dict[str, np.ndarray]) -> None:
    forms = {split: (x.shape[1:], x.dtype) for split, x in inputs.items()}
    if len(set(forms.values())) > 1:
        told = "; ".join(f"x_{split} {dtype} {list(shape)}" for split, (shape, dtype) in forms.items())
        raise UserError(f"examples of {file} differ in shape or dtype: {told}")
