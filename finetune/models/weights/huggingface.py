"""Weights of a BERT encoder as Hugging Face's transformers stores them: model.safetensors beside config.json.

Large ones are in several files, shards, with an index that says which tensor is in which.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from finetune.errors import UserError

_SIZES = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
}
_EPSILON, _DEFAULT_EPSILON = "layer_norm_eps", 1e-12  # transformers' own, for files that leave it out
# Settings of which one value is supported; it is also transformers' default.
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
# Settings that do not change what an encoder computes, whatever they are, as patterns.
_HARMLESS = (
    # of training
    *("initializer_(range|factor)", ".*dropout(_prob|_rate)?", "gradient_checkpointing"),
    # of heads and of what follows the last block
    *("architectures", "id2label", "label2id", "_?num_labels", "problem_type", "finetuning_task", "classifier_.*"),
    *("pooler_.*", "directionality", "tie_.*", "sentence_transformers", "sbert_ce_default_activation_function"),
    # of generation, which older versions wrote for every model
    *("(min|max)_length", "num_beams", "num_beam_groups", "num_return_sequences", "do_sample", "early_stopping"),
    *(
        "(diversity|length|repetition)_penalty",
        "(encoder_)?no_repeat_ngram_size",
        "temperature",
        "top_[kp]",
        "typical_p",
    ),
    *("use_cache", "output_(past|scores|attentions|hidden_states)", "(use_)?return_dict(_in_generate)?"),
    *("task_specific_params", "prefix", ".*_token_id"),
    # of the file, and of how the same numbers are computed
    *("_?name_or_path", "_commit_hash", ".*transformers_version", "transformers[.]js_config", "(torch_)?dtype"),
    *("torchscript", "xla_device", "chunk_size_feed_forward", "_?attn_implementation.*"),
)
_IS_HARMLESS = re.compile("|".join(_HARMLESS)).fullmatch
_OFF: tuple[Any, ...] = (None, False, 0, "", [], {})  # what a setting that is not known may be

INDEX = "model.safetensors.index.json"  # of weights in several files
_MODULES = {
    "embeddings.word_embeddings": "embeddings/word",
    "embeddings.position_embeddings": "embeddings/position",
    "embeddings.token_type_embeddings": "embeddings/token_type",
    "embeddings.LayerNorm": "embeddings/norm",
}
_BLOCK_MODULES = {
    "attention.self.query": "attention/query",
    "attention.self.key": "attention/key",
    "attention.self.value": "attention/value",
    "attention.output.dense": "attention/output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "mlp/up",
    "output.dense": "mlp/down",
    "output.LayerNorm": "mlp_norm",
}
_NAMES = {ours: theirs for theirs, ours in (_MODULES | _BLOCK_MODULES).items()}
_NORM_LEAVES = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}  # gamma, beta: older files
_IGNORED = re.compile(r"embeddings\.position_ids|(pooler|cls|classifier)\..*")
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")


def architecture(path: Path) -> dict[str, Any]:
    """Returns {"model": "bert", size: value} from the config.json beside the weights file `path`.

    Raises UserError for a file that is missing or damaged, and for a variant of BERT that is not supported: a setting
    that is not known to change nothing is refused unless it is off.
    """
    file = path.with_name("config.json")
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {file}, which must be beside the weights: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not JSON, allowed: the config.json of a BERT encoder") from None
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no JSON object, allowed: the config.json of a BERT encoder")
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise UserError(f"{file}: {name} is {settings[name]!r}, allowed: {value!r}")
    _check_known(settings, file)
    missing = [name for name in _SIZES.values() if name not in settings]
    if missing:
        raise UserError(f"{file}: {', '.join(missing)} missing, allowed: the config.json of a BERT encoder")
    epsilon = settings.get(_EPSILON, _DEFAULT_EPSILON)
    return {"model": "bert", **{size: settings[name] for size, name in _SIZES.items()}, "epsilon": epsilon}


def _check_known(settings: dict[str, Any], file: Path) -> None:
    known = {*_FIXED, *_SIZES.values(), _EPSILON}
    for name, value in settings.items():
        if name not in known and value not in _OFF and not _IS_HARMLESS(name):
            raise UserError(
                f"{file}: {name} is {str(value)[:40]!r}, which is not known here and may change what is computed, "
                "allowed: false or null; remove it if it changes nothing"
            )


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the .safetensors file `path`, kernels as [in, out]; heads and the pooler are left out.

    A name that no BERT encoder has is kept as it is. Raises UserError for a file that cannot be read.
    """
    found: dict[str, np.ndarray] = {}
    ignored = []

    def is_encoder(name: str) -> bool:
        if _IGNORED.fullmatch(name.removeprefix("bert.")):
            ignored.append(name)
        return name not in ignored

    for name, array in read_tensors(path, is_encoder).items():
        target = _path(name.removeprefix("bert.")) or name
        if target in found:
            raise UserError(f"{path} holds {target} under two names, one of them {name!r}, allowed: one")
        found[target] = array.T if target.endswith("/kernel") else array
    if ignored:
        logging.getLogger(__name__).info("%s: not used: %s", path, ", ".join(ignored))
    return found


def read_tensors(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """Returns {name: array} of the tensors in a .safetensors file, or in all that an index of shards names, that are
    `wanted`; raises UserError for a bad file, and for shards that do not hold what the index says.

    Nothing is executed: the format is a JSON header and raw numbers, and the library checks every offset.
    """
    if path.name != INDEX:
        return _tensors_of(path, wanted, None)
    found: dict[str, np.ndarray] = {}
    shard_of = _shard_of(path)
    for shard in sorted(set(shard_of.values())):
        names = {name for name in shard_of if shard_of[name] == shard}
        found |= _tensors_of(path.with_name(shard), wanted, names)
    return found


def files(path: Path) -> list[Path]:
    """Returns all files of the weights at `path`: an index of shards and each of them, else the file itself."""
    if path.name != INDEX:
        return [path]
    return [path, *(path.with_name(shard) for shard in sorted(set(_shard_of(path).values())))]


def _shard_of(index: Path) -> dict[str, str]:
    """Returns {tensor: name of the file beside `index` that holds it}."""
    try:
        found = json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"]
        names = {str(name): str(shard) for name, shard in found.items()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {index} as an index of shards: {error}") from None
    for shard in names.values():
        if Path(shard).name != shard or Path(shard).suffix != ".safetensors":
            raise UserError(f"{index} names the file {shard!r}, allowed: .safetensors files beside it")
    return names


def _tensors_of(path: Path, wanted: Callable[[str], bool], declared: set[str] | None) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            if declared is not None and names != declared:
                raise UserError(f"{path} and {INDEX} differ in {min(names ^ declared)!r}, allowed: shards of one model")
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} as safetensors: {error}") from None


def config_document(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what transformers reads in config.json for an encoder of this architecture."""
    sizes = {name: architecture[size] for size, name in _SIZES.items()}
    return {**_FIXED, **sizes, _EPSILON: architecture["epsilon"]}


def tensors(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns {transformers' name: array} of an encoder's leaves {path: array}, dense weights [out, in]."""
    return {
        _name(path): np.ascontiguousarray(leaf.T if path.endswith("/kernel") else leaf) for path, leaf in leaves.items()
    }


def module(layer: str) -> str:
    """Returns transformers' name of the dense layer at this project's path; raises UserError where it has none."""
    try:
        return _name(f"{layer}/kernel").removesuffix(".weight")
    except KeyError:
        raise UserError(f"layer {layer!r} has no name in transformers, allowed: those of the encoder") from None


def _name(path: str) -> str:
    """Returns transformers' name of the leaf at this project's `path`: what `_path` reads."""
    target, _, kind = path.rpartition("/")
    leaf = "bias" if kind == "bias" else "weight"
    if target in _NAMES:
        return f"{_NAMES[target]}.{leaf}"
    block, _, module = target.partition("/")
    return f"encoder.layer.{block.removeprefix('block_')}.{_NAMES[module]}.{leaf}"


def _path(name: str) -> str | None:
    """Returns this project's path of the tensor `name`, None when an encoder has no such tensor."""
    module, _, leaf = name.rpartition(".")
    block = _BLOCK.fullmatch(module)
    target = _BLOCK_MODULES.get(block[2]) if block else _MODULES.get(module)
    if target is None:
        return None
    if target.endswith("norm"):
        kind = _NORM_LEAVES.get(leaf)
    elif target.startswith("embeddings/"):
        kind = {"weight": "embedding"}.get(leaf)
    else:
        kind = {"weight": "kernel", "bias": "bias"}.get(leaf)
    if kind is None:
        return None
    return f"block_{block[1]}/{target}/{kind}" if block else f"{target}/{kind}"
