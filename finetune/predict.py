"""python -m finetune.predict MODEL_DIR INPUT [--to=FILE] [--config=FILE]: labels of new rows, by an exported model.

INPUT is a .csv, .tsv, .jsonl or .txt file of texts, an image, a folder of images, or an .npz file with an array x. The
answer is CSV: a row for each row of INPUT, with the most probable class and the probability of every class; of a
multilabel model all classes that are more probable than not; of a regression the value, of a contrastive model the
cosine of two texts, of one that answers questions the answer. Of a model of tokens it has a row for each word: the
items of a list in a .jsonl file, else what spaces part. --config names the config file of a task of the user's own,
whose outputs are taken as those of its kind of task: logits, or the values of a regression.
"""

import contextlib
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from finetune import cli, models
from finetune.config import DataConfig
from finetune.data import arrays, delimited, images, text
from finetune.errors import UserError, one_of
from finetune.export import answering
from finetune.export.predictor import IMAGE, TOKENS, TYPES, Model, load
from finetune.hosts import output
from finetune.member.metric import unit
from finetune.member.params import abstract, unflatten
from finetune.member.task import Task
from finetune.models import of_kind
from finetune.models.weights import pretrained
from finetune.study import user_task

_BATCH = 32
_LINES = ".txt"  # a text a line


def read(path: Path, model: Model) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns a name for each row of `path`, and the rows as the model reads them: arrays, leading axis rows.

    Raises UserError for rows that cannot be read, and for those that are not what the model was trained on.
    """
    if not path.exists():
        raise UserError(f"INPUT is {str(path)!r}: no such file or directory")
    if model.reads != TOKENS:
        names, values = _images(path, model.config.data)
        return names, {model.reads: _fitted(values, model)}
    lines, texts = _texts(path, model.config.data)
    encoded = text.encode_for(
        model.config.data.task, texts, model.tokenizer, model.config.data.max_length, _width(model)
    )
    read = encoded.keys() - {"cut", *({TYPES} - model.inputs.keys())}
    return [str(line) for line in lines], {name: array for name, array in encoded.items() if name in read}


def _width(model: Model) -> int:
    """Returns the tokens that an example has at least: a model of the user's own may be of the length of training."""
    return model.inputs[TOKENS].shape[0] if model.own_task is not None else 0


def _texts(path: Path, config: DataConfig) -> tuple[list[int], list[Any]]:
    if delimited.is_delimited(path) and path.is_file():
        return delimited.read_texts(path, config.text_column, config.text_columns)
    if config.text_columns:
        raise one_of(f"ending of {path}, of pairs of texts,", path.suffix, delimited.SUFFIXES)
    if path.suffix.lower() != _LINES or not path.is_file():
        raise one_of(f"ending of {path}", path.suffix, [*delimited.SUFFIXES, _LINES])
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise UserError(f"{path} has no rows")
    return [number for number, _ in found], [line for _, line in found]


def _images(path: Path, data: DataConfig) -> tuple[list[str], np.ndarray]:
    if path.suffix.lower() == ".npz" and path.is_file():
        pixels = images.sized(arrays.read_inputs(path), data)
        return [str(number) for number in range(len(pixels))], pixels
    files = [path] if path.is_file() else images.files_below(path)
    names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in files]
    names = [name.encode(errors="backslashreplace").decode() for name in names]  # names of files need not be text
    return names, images.decode(files, data.image_size, images.Scaling.of(data))


def _fitted(pixels: np.ndarray, model: Model) -> np.ndarray:
    """Returns images [N, H, W, C] or features [N, D] as the model reads them: of grey images RGB where it reads RGB.

    Raises UserError for another shape than that of training, and for whole numbers in place of others.
    """
    trained = model.inputs.get(model.reads)
    if trained is not None and trained.dtype != pixels.dtype:
        raise UserError(f"INPUT holds {pixels.dtype}, allowed: {trained.dtype}, as the model was trained on")
    shape = _shape(model) if model.own_task is None else model.inputs[model.reads].shape
    if shape is None:
        return pixels
    if len(shape) == 3 and pixels.shape[1:] == (*shape[:2], 1):
        pixels = np.repeat(pixels, shape[2], axis=3)
    if pixels.shape[1:] != shape:
        told, allowed = (" x ".join(map(str, each)) for each in (pixels.shape[1:], shape))
        axes = ", rows x columns x channels" if model.reads == IMAGE else ""
        raise UserError(f"{model.reads.removesuffix('s')}s of INPUT are {told}, allowed: {allowed}{axes}")
    return pixels


def _shape(model: Model) -> tuple[int, ...] | None:
    """Returns the shape of one image that a model of finetune's reads; None: any."""
    try:
        found: tuple[int, ...] | None
        found = models.MODELS[model.architecture["model"]].image_shape(model.leaves, model.architecture)
    except KeyError as error:
        source = model.config.model.pretrained
        raise UserError(f"{source} holds no weights at {error}, allowed: as finetune.export wrote") from None
    return found


# What is told of a model's outputs, by kind of task.
_TOLD: dict[str, Callable[[jax.Array], jax.Array]] = {
    "classification": jax.nn.softmax,
    "multilabel": jax.nn.sigmoid,
    "regression": lambda outputs: outputs,
    "tokens": jax.nn.softmax,
    "choice": jax.nn.softmax,
    "question_answering": lambda outputs: outputs,
    "contrastive": lambda outputs: (unit(outputs[:, 0]) * unit(outputs[:, 1])).sum(axis=1, keepdims=True),
}
_ONE_VALUE = ("regression", "contrastive")  # of a row, and no label


def probabilities(model: Model, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the probability of each class for each row, float32 [N, C], or values [N, 1] of a regression; of tokens
    [N, T, C].

    Raises UserError for weights that do not fit. The model is deterministic, and a row's answer does not depend on the
    others beyond rounding.
    """
    example = {name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in rows.items()}
    kind = model.config.data.task
    outputs = 2 if kind == "question_answering" else max(len(model.classes), 1)
    if model.own_task is None:
        task = of_kind.build(model.config.model, kind, len(model.classes), example)
    else:
        task = user_task.build(model.own_task, len(model.classes), example, "")
    pretrained.compare(model.leaves, abstract(task), Path(model.config.model.pretrained))
    if kind != "contrastive":
        per_position = kind in ("tokens", "question_answering")
        _check_outputs(task, example, (*next(iter(example.values())).shape[:per_position], outputs))
    return _run(task, jax.device_put(unflatten(model.leaves)), rows, _TOLD[kind])


def _check_outputs(task: Task, example: dict[str, jax.ShapeDtypeStruct], wanted: tuple[int, ...]) -> None:
    """Raises UserError unless a task gives one array, with this shape for one example."""
    batch = {name: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype) for name, leaf in example.items()}
    found = jax.eval_shape(lambda params, batch: task.apply(params, batch, 0.0, None), unflatten(abstract(task)), batch)
    if getattr(found, "shape", None) != (1, *wanted):
        told = [list(leaf.shape) for leaf in jax.tree.leaves(found)]
        raise UserError(f"the model gives arrays of shapes {told} for one example, allowed: {[1, *wanted]}")


def _run(
    task: Task, params: dict[str, Any], rows: dict[str, np.ndarray], told: Callable[[jax.Array], jax.Array]
) -> np.ndarray:
    @jax.jit
    def forward(params: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
        return told(task.apply(params, batch, 0.0, None).astype(jnp.float32))

    count = len(next(iter(rows.values())))
    found = []
    for start in range(0, count, _BATCH):
        index = np.arange(start, start + _BATCH) % count  # all batches have one size: one program
        found.append(np.asarray(forward(params, {name: array[index] for name, array in rows.items()})))
    return np.concatenate(found)[:count]


def read_words(path: Path, model: Model) -> tuple[list[int], list[list[str]]]:
    """Returns the line and the words of each row of `path`; raises UserError as `read` does."""
    column = model.config.data.text_column
    if path.suffix.lower() == ".jsonl" and path.is_file():
        found = list(delimited.rows(path))
        return [n for n, _ in found], [delimited.words_of(row, column, f"{path}:{n}") for n, row in found]
    lines, texts = _texts(path, model.config.data)
    return lines, [each.split() or [""] for each in texts]


def write(file: TextIO, model: Model, names: Sequence[str], found: np.ndarray) -> None:
    """Writes CSV: row, label, and p:CLASS for each class; a row is a line from 1, a place from 0, or a path.

    Several labels are parted as in the data that the model was trained on; a regression has a column "value" alone, in
    all digits of a float32, and so have pairs of a contrastive model: their cosine.
    """
    writer = csv.writer(file, lineterminator="\n")
    one_value = model.config.data.task in _ONE_VALUE
    writer.writerow(["row", "value"] if one_value else ["row", "label", *(f"p:{name}" for name in model.classes)])
    for name, values in zip(names, found, strict=True):
        label = [] if one_value else [_label(model, values)]
        writer.writerow([name, *label, *(str(value) if one_value else f"{value:.6g}" for value in values)])


def _label(model: Model, values: np.ndarray) -> str:
    """Returns the label of a row with these probabilities [C]."""
    if model.config.data.task == "multilabel":
        chosen = [name for name, value in zip(model.classes, values, strict=True) if value > 0.5]
        return model.config.data.label_separator.join(chosen)
    return model.classes[int(values.argmax())]


def write_words(
    file: TextIO,
    model: Model,
    lines: Sequence[int],
    words: Sequence[Sequence[str]],
    word: np.ndarray,
    found: np.ndarray,
) -> None:
    """Writes CSV with a row for each word: row, word, label, and p:CLASS; without label where the text was cut.

    word: int32 [N, T] as `text.encode_words` gives it; found: probabilities [N, T, C].
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "word", "label", *(f"p:{name}" for name in model.classes)])
    for line, of_line, places, values in zip(lines, words, word, found, strict=True):
        token = {place: number for number, place in enumerate(places.tolist()) if place >= 0}
        for place, each in enumerate(of_line):
            shares = values[token[place]] if place in token else None
            told = ["", *[""] * len(model.classes)] if shares is None else [_label(model, shares), *map(_text, shares)]
            writer.writerow([line, each, *told])


def _text(share: float) -> str:
    return f"{share:.6g}"


@contextlib.contextmanager
def _opened(to: Path | None) -> Iterator[TextIO]:
    if to is None:
        try:
            yield output.exact()
            output.exact().flush()
        except BrokenPipeError:
            raise
        except (OSError, UnicodeEncodeError, AttributeError) as error:
            raise UserError(f"standard output cannot take the answer ({error}), allowed: --to=FILE") from None
        return
    try:
        with to.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}: {error.strerror}, allowed: a file that can be written") from None


def _task_of(file: Path) -> user_task.OwnTask:
    """Returns the task that a config file defines; raises UserError if it defines none."""
    if not file.is_file():
        raise UserError(f"--config is {str(file)!r}, allowed: the config file of the study")
    defined = cli.defined(file)
    if "task" not in defined:
        raise UserError(f"--config is {str(file)!r}, which defines no task, allowed: one with task(classes, example)")
    task: user_task.OwnTask = defined["task"]
    return task


def main() -> None:
    """Predicts what the command line names."""
    parser = cli.Parser("finetune.predict", __doc__.splitlines()[0].partition(": ")[2])
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="that python -m finetune.export wrote")
    parser.add_argument("input", metavar="INPUT", type=Path, help="texts or images; labels are not needed")
    parser.add_argument("--config", metavar="FILE", type=Path, help="of a model of your own: what defines its task")
    parser.add_argument("--to", metavar="FILE", type=Path, help="of CSV; default: standard output")
    given = parser.parse_args()
    if given.to is not None and (given.to.is_dir() or not given.to.absolute().parent.is_dir()):
        raise UserError(f"--to is {str(given.to)!r}, allowed: a file in a directory that exists")
    model = load(given.model, None if given.config is None else _task_of(given.config))
    if model.config.data.task == "tokens":
        lines, words = read_words(given.input, model)
        rows = text.encode_words(words, model.tokenizer, model.config.data.max_length, _width(model))
        word, _ = rows.pop("word"), rows.pop("cut")
        tags = probabilities(model, rows)
        with _opened(given.to) as file:
            write_words(file, model, lines, words, word, tags)
        return
    if model.config.data.task == "question_answering":
        lines, texts = _texts(given.input, model.config.data)
        rows, places = answering.encoded(texts, model, _width(model))
        answers = answering.answers(texts, places, probabilities(model, rows))
        with _opened(given.to) as file:
            answering.write(file, lines, answers)
        return
    names, rows = read(given.input, model)
    found = probabilities(model, rows)
    with _opened(given.to) as file:
        write(file, model, names, found)


if __name__ == "__main__":
    sys.exit(cli.run(main))
