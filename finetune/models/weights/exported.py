"""A trial outside its study: the directory that finetune.export writes, finetune.predict reads and a study starts from.

finetune.json               what the model is, its classes, how inputs are prepared, and the trial's results
model.safetensors           Families: the encoder under transformers' names, the head where `classifier` says.
config.json                 Others: every leaf under this project's path, and no config.json
1_Pooling, 2_Dense          pooling and head, as sentence-transformers stores them
tokenizer.json, tokenizer_config.json; preprocessor_config.json
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer

from finetune import config as settings
from finetune.config import POOLINGS, Config, DataConfig, ModelConfig
from finetune.errors import UserError
from finetune.models.weights import classifier, huggingface, preprocessor, safetensors_file
from finetune.models.weights.families import FAMILIES
from finetune.models.weights.sentence_transformers import Declared

FILE = "finetune.json"
FORMAT = 1
_HEAD = "2_Dense"
_CLASS_TOKEN, _TOKEN_POSITION = "embeddings/class_token", "embeddings/token_position"
_TRANSFORMERS = "sentence_transformers.models."
_LEAST_CLASSES = {
    "classification": 2,
    "multilabel": 1,
    "regression": 0,
    "tokens": 2,
    "choice": 2,
    "contrastive": 0,
    "question_answering": 0,
}
_ALLOWED = "allowed: the file as finetune.export wrote it"


def is_known_to_transformers(architecture: Mapping[str, Any]) -> bool:
    """Says whether a model is written as transformers stores it."""
    return architecture.get("model") in FAMILIES


def class_of(architecture: Mapping[str, Any], config: Mapping[str, Any], classes: Sequence[str]) -> str | None:
    """Returns the class of transformers that computes what the model computes; None: there is none.

    config: its settings "model" and "data".
    """
    task = config["data"].get("task", "classification")
    return classifier.class_of(architecture, task, config["model"]["pooling"], max(len(classes), 1))


def write(
    directory: Path, description: Mapping[str, Any], leaves: Mapping[str, np.ndarray], tokenizer: Path | None
) -> None:
    """Writes all files but the Orbax checkpoint and the card into an empty directory.

    description: what FILE holds beside its format, see `read`; leaves: every parameter {path: array}.
    """
    _write_json(directory / FILE, {"format": FORMAT, **description})
    if tokenizer is not None:
        _write_tokenizer(directory, tokenizer, description["data"], description["architecture"])
    if not is_known_to_transformers(description["architecture"]):
        _save(directory, {path: np.ascontiguousarray(leaf) for path, leaf in leaves.items()})
        return
    _write_for_transformers(directory, description, leaves)
    _write_head(directory, leaves)
    family, data = FAMILIES[description["architecture"]["model"]], description["data"]
    image = description.get("inputs", {}).get("image", {})
    if family.images and image.get("dtype") == "uint8":
        _write_preprocessor(directory, image["shape"], description["architecture"], data)
    if not family.images and data.get("task") not in ("tokens", "question_answering"):
        _write_pooling(directory, description["model"]["pooling"], *leaves["head/kernel"].shape)


def _write_for_transformers(directory: Path, description: Mapping[str, Any], leaves: Mapping[str, np.ndarray]) -> None:
    """Writes config.json and model.safetensors, for a class with the head where one computes the same."""
    architecture, task = description["architecture"], description["data"].get("task", "classification")
    model, name = architecture["model"], class_of(architecture, description, description["classes"])
    encoder = {path: leaf for path, leaf in leaves.items() if not path.startswith("head/")}
    document = huggingface.config_document(architecture, encoder)
    tensors = huggingface.tensors(encoder, architecture)
    if name:
        tensors = {f"{classifier.prefix(model)}{each}": array for each, array in tensors.items()}
    _save(directory, tensors | classifier.tensors(name, model, leaves))
    _write_json(directory / "config.json", document | classifier.config_document(name, task, description["classes"]))


def _save(directory: Path, tensors: dict[str, np.ndarray]) -> None:
    # transformers asks for a format; save_file would let no other user read the file.
    (directory / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))


def _write_head(directory: Path, leaves: Mapping[str, np.ndarray]) -> None:
    (directory / _HEAD).mkdir()
    _save(
        directory / _HEAD,
        {"linear.weight": np.ascontiguousarray(leaves["head/kernel"].T), "linear.bias": leaves["head/bias"]},
    )


def _write_pooling(directory: Path, pooling: str, width: int, classes: int) -> None:
    """Writes what sentence-transformers needs to compute logits: SentenceTransformer(directory).encode(texts)."""
    (directory / "1_Pooling").mkdir()
    means = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "first"}
    means["pooling_mode_max_tokens"] = pooling == "max"
    _write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **means})
    identity = {"bias": True, "activation_function": "torch.nn.modules.linear.Identity"}
    _write_json(directory / _HEAD / "config.json", {"in_features": width, "out_features": classes, **identity})
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), (_HEAD, "Dense"))
    rows = [
        {"idx": number, "name": str(number), "path": path, "type": _TRANSFORMERS + kind}
        for number, (path, kind) in enumerate(modules)
    ]
    _write_json(directory / "modules.json", rows)


def _write_tokenizer(directory: Path, file: Path, data: Mapping[str, Any], architecture: Mapping[str, Any]) -> None:
    max_length = data["max_length"]
    (directory / "tokenizer.json").write_bytes(file.read_bytes())
    tokenizer = Tokenizer.from_file(str(file))
    unknown = getattr(tokenizer.model, "unk_token", None)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # tokenizer.json as it is, lower-casing included
        "model_max_length": max_length,
        "pad_token": tokenizer.id_to_token((tokenizer.padding or {}).get("pad_id", architecture.get("padding", 0))),
        **({"unk_token": unknown} if unknown else {}),
    }
    if architecture.get("token_types", 0) < 2:
        described["model_input_names"] = ["input_ids", "attention_mask"]  # others are refused by some
    elif data.get("text_columns"):
        described["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    _write_json(directory / "tokenizer_config.json", described)
    _write_json(directory / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})


def _write_preprocessor(
    directory: Path, shape: Sequence[int], architecture: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Writes what transformers does to images of 0 to 255 before a model that reads [H, W, C]."""
    scaling = preprocessor.Preparation(
        image_size=data["image_size"],
        resampling=data.get("image_resampling", "bilinear"),
        crop=data.get("image_crop", 1.0),
        keeps_aspect=data.get("image_aspect") == "kept",
    )
    shape = (*shape[:2], architecture.get("channels", shape[2]))
    pixels = (architecture.get(name, ()) for name in ("mean", "deviation"))
    _write_json(directory / preprocessor.FILE, preprocessor.document(shape, scaling, *pixels))


def _write_json(file: Path, content: dict[str, Any] | Sequence[Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(directory: Path) -> dict[str, Any]:
    """Returns what FILE holds: "architecture", "model" and "data" (settings), "classes", and what is for readers.

    Raises UserError for a directory that finetune.export did not write, and for another format.
    """
    file = directory / FILE
    if not file.is_file():
        raise UserError(f"{directory} holds no {FILE}, allowed: a directory that python -m finetune.export wrote")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}), {_ALLOWED}") from None
    if not isinstance(found, dict) or not isinstance(found.get("architecture"), dict):
        raise UserError(f"{file} holds no architecture, {_ALLOWED}")
    if found.get("format") != FORMAT:
        raise UserError(f"{file} has format {found.get('format')!r}, allowed: {FORMAT}; export the trial again")
    return found


def read_config(directory: Path) -> tuple[Config, tuple[str, ...]]:
    """Returns the settings of model and data with which an exported model runs, and its classes."""
    found = read(directory)
    try:
        model = ModelConfig(name=found["architecture"]["model"], pretrained=str(directory), **found["model"])
        config = Config(model=model, data=DataConfig(name=str(directory), **found["data"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory / FILE} is damaged ({error}), {_ALLOWED}") from None
    settings.check(config)
    classes = found.get("classes")
    least = _LEAST_CLASSES[config.data.task]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or len(classes) < least:
        raise UserError(f"{directory / FILE}: classes are {str(classes)[:40]}, allowed: a list of names")
    return config, tuple(classes)


def declared(path: Path) -> Declared:
    """Returns pooling and length of texts of the model in the directory `path`."""
    found = read(path)
    model, data = (found[part] if isinstance(found.get(part), dict) else {} for part in ("model", "data"))
    pooling, length = model.get("pooling"), data.get("max_length")
    length = length if type(length) is int and length > 0 else None
    return Declared(pooling if pooling in POOLINGS else None, length, binding=False)


def architecture(path: Path) -> dict[str, Any]:
    """Returns {"model": name, size: value} of the model in the directory `path`."""
    return dict(read(path)["architecture"])


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of every leaf, the head included."""
    weights, architecture = path / "model.safetensors", read(path)["architecture"]
    if not (path / "config.json").is_file():
        return safetensors_file.read_tensors(weights)
    head = safetensors_file.read_tensors(path / _HEAD / "model.safetensors")
    names = {"linear.weight": "head/kernel", "linear.bias": "head/bias"}
    encoder = huggingface.parameters(weights)
    if "positioned" not in architecture and (position := encoder.pop(_TOKEN_POSITION, None)) is not None:
        encoder[_CLASS_TOKEN] = encoder[_CLASS_TOKEN] + position[0]  # which is 0
    return encoder | {names.get(name, name): leaf.T for name, leaf in head.items()}
