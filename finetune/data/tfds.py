"""Prepared TFDS sets, read by random access and without TensorFlow."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from finetune.config import DataConfig
from finetune.data.source import SPLITS, Examples, Source, labelled, split_of
from finetune.errors import UserError

PREFIX = "tfds:"
_OWN_FEATURES = "tensorflow_datasets.core.features."
_CLASS_KEYS = {"pythonClassName", "python_class_name", "type"}
_UNLABELLED = -1  # what TFDS puts where a test split's labels are withheld


def read_name(name: str, config: DataConfig) -> Source:
    """Returns the set `name` (NAME, NAME/CONFIG, NAME:VERSION) under $TFDS_DATA_DIR, else under TFDS's own default.

    Raises UserError when it has not been prepared there, and as `read` does.
    """
    from tensorflow_datasets.core.constants import DATA_DIR
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    directory = Path(os.environ.get("TFDS_DATA_DIR") or DATA_DIR) / re.split("[:/]", name)[0]
    for versions in ("*", "*/*"):  # NAME/VERSION, NAME/CONFIG/VERSION
        for file in directory.glob(f"{versions}/features.json"):
            _check_features(file)
    with _told(f"tfds set {name!r} is not prepared"):
        # From the files alone: code of the set, which may need TensorFlow, is not looked for.
        builder = builder_from_files(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    return _read(builder, config)


def read_directory(directory: Path, config: DataConfig) -> Source:
    """Returns the prepared set in `directory`, the one that holds dataset_info.json.

    A split whose labels are withheld is left out. Raises UserError for a missing column, inputs that are neither text
    nor image, several labels an example, and a set that is damaged or has no random access (is no ArrayRecord).
    """
    import tensorflow_datasets

    _check_features(directory / "features.json")
    with _told(f"cannot read the tfds set in {directory}"):
        builder = tensorflow_datasets.builder_from_directory(directory)
    return _read(builder, config)


def _check_features(file: Path) -> None:
    """Raises UserError for features of a class that is not TFDS's own: TFDS would import the module it names."""
    if not file.is_file():
        return
    try:
        foreign = sorted(_foreign_classes(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {error}") from error
    if foreign:
        raise UserError(f"{file}: a feature is of class {foreign[0]!r}, allowed: classes of {_OWN_FEATURES}*")


def _foreign_classes(entry: Any) -> set[str]:
    """Returns the classes that a JSON value names anywhere and that are not TFDS's own."""
    if isinstance(entry, str) and entry.lstrip().startswith("{"):  # older sets hold JSON inside JSON
        entry = json.loads(entry)
    if isinstance(entry, list):
        return set().union(*map(_foreign_classes, entry))
    if not isinstance(entry, dict):
        return set()
    named = {entry[key] for key in _CLASS_KEYS & entry.keys() if isinstance(entry[key], str)}
    inner = set().union(*map(_foreign_classes, entry.values()))
    return inner | {name for name in named if not name.startswith(_OWN_FEATURES)}


def _read(builder: Any, config: DataConfig) -> Source:
    import tensorflow_datasets

    kind, inputs = _inputs(builder, config)
    # Left as bytes, images are decoded once it is known which are kept.
    decoders = {inputs[0]: tensorflow_datasets.decode.SkipDecoding()} if kind == "image" else None
    names = getattr(builder.info.features[config.label_column], "names", None)
    splits = {}
    with _told(f"cannot read the tfds set {builder.name}"):
        for split, stored in _splits(builder).items():
            try:
                rows = builder.as_data_source(split=stored, decoders=decoders)
            except NotImplementedError as error:
                form = builder.info.file_format.value
                raise UserError(f"tfds set {builder.name} is stored as {form}, allowed: array_record") from error
            splits[split] = _examples(rows, inputs, config.label_column, bytes if kind == "image" else _text, names)
    return labelled(Source(kind, splits, order=tuple(names or ())))


def _splits(builder: Any) -> dict[str, str]:
    """Returns {one of SPLITS: the set's own name of it}; raises UserError where it has two."""
    found: dict[str, str] = {}
    for stored in builder.info.splits:
        if (split := split_of(stored)) in SPLITS:
            if split in found:
                raise UserError(f"tfds set {builder.name} has splits {found[split]} and {stored}, allowed: one {split}")
            found[split] = stored
    return {split: found[split] for split in SPLITS if split in found}


def _inputs(builder: Any, config: DataConfig) -> tuple[Literal["image", "text", "pair"], tuple[str, ...]]:
    """Returns what the inputs are and their columns: those of a pair, else config.text_column if it is there or image.

    Raises UserError for a column that is missing, or holds something else.
    """
    import tensorflow_datasets

    features = builder.info.features
    columns = config.text_columns or (config.text_column if config.text_column in features else "image",)
    wanted = zip(columns, config.text_columns or (config.text_column,), strict=True)
    for needed, asked in (*wanted, (config.label_column, config.label_column)):
        if needed not in features:
            raise UserError(f"tfds set {builder.name}: no column {asked!r}, present: {', '.join(sorted(features))}")
    if features[config.label_column].shape != ():
        stored = type(features[config.label_column]).__name__
        raise UserError(
            f"tfds set {builder.name}: column {config.label_column!r} is {stored}, allowed: one label an example"
        )
    if len(columns) == 1 and isinstance(features[columns[0]], tensorflow_datasets.features.Image):
        return "image", columns
    for column in columns:
        if features[column].shape != ():
            stored = type(features[column]).__name__
            allowed = "a text or an image" if len(columns) == 1 else "a text"
            raise UserError(f"tfds set {builder.name}: column {column!r} is {stored}, allowed: {allowed}")
    return "text" if len(columns) == 1 else "pair", columns


def _examples(rows: Any, inputs: Sequence[str], label: str, convert: Callable, names: list[str] | None) -> Examples:
    found, labels = [], []
    for index in range(len(rows)):
        row = rows[index]
        values = tuple(convert(row[column]) for column in inputs)
        found.append(values if len(values) > 1 else values[0])
        value = row[label]
        labels.append(names[value] if names and value != _UNLABELLED else _text(value))
    return Examples(found, labels)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # TFDS and its readers declare no exceptions of their own, and a damaged file can raise nearly any.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{what}: {reason} (to prepare an official set: install finetune[tf], then"
            " tfds build NAME --file_format=array_record; TFDS_DATA_DIR says where it lies)"
        ) from error
