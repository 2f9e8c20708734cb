"""Weights of an encoder as Hugging Face's transformers stores them: model.safetensors beside config.json.

Large ones are in several files, see `safetensors_file`. What settings and tensors are called is in `families`.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finetune.errors import UserError, one_of
from finetune.models.weights import preprocessor, safetensors_file
from finetune.models.weights.families import FAMILIES, TOWERS
from finetune.models.weights.families.family import Family, Settings

_DEFAULT = "bert"  # of files that name no model_type
_ALLOWED = "allowed: the config.json of an encoder"
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
_NO_LEAVES: Mapping[str, np.ndarray] = {}
_OFF: tuple[Any, ...] = (None, False, 0, "", [], {})  # what a setting that is not known may be
# Tensors of heads and of what follows the last block, and positions that are only counted, without the prefix.
_IGNORED = (
    r"(embeddings\.)?position_ids|(pooler|cls|classifier|pre_classifier|qa_outputs|lm_head|head|decoder|vocab_\w+|"
    r"discriminator_predictions|generator_\w+|lm_predictions|mask_predictions|sequence_summary)\..*"
)


def architecture(path: Path) -> dict[str, Any]:
    """Returns {"model": model_type, size: value} from the config.json beside the weights file `path`.

    Raises UserError for a file that is missing or damaged, and for a variant that is not supported: a setting that is
    not known to change nothing is refused unless it is off.
    """
    file = path.with_name("config.json")
    model, family, settings = _family(_settings(file), file)
    _check_values(settings, family, file)
    _check_known(settings, family, file)
    missing = [name for name in family.sizes.values() if name not in settings]
    if missing:
        raise UserError(f"{file}: {', '.join(missing)} missing, {_ALLOWED}")
    try:
        derived = family.derive(settings)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if family.images:
        derived |= preprocessor.read(path.parent).pixels(derived["channels"])
    return {
        "model": model,
        **{size: settings[name] for size, name in family.sizes.items()},
        **{size: settings.get(name, value) for size, (name, value) in family.defaults.items()},
        **family.constants,
        **derived,
        **_activation(settings, family),
    }


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {file}, which must be beside the weights: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not JSON, {_ALLOWED}") from None
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no JSON object, {_ALLOWED}")
    return settings


def _family(settings: Settings, file: Path) -> tuple[str, Family, Settings]:
    """Returns the name of a family, the family, and its settings."""
    model = settings.get("model_type", _DEFAULT)
    if model == "albert":
        raise UserError(f"{file}: model_type is 'albert', whose blocks are one, allowed: {', '.join(FAMILIES)}")
    if model in TOWERS:
        family = FAMILIES[TOWERS[model]]
        settings = settings.get(family.inside, {})
        if not isinstance(settings, dict):
            raise UserError(f"{file}: {family.inside} is {str(settings)[:40]!r}, {_ALLOWED}")
        return TOWERS[model], family, {**settings, "model_type": TOWERS[model]}
    if not isinstance(model, str) or model not in FAMILIES:
        raise one_of(f"{file}: model_type", model, FAMILIES)
    return model, FAMILIES[model], settings


def family_of(path: Path) -> Family:
    """Returns the family of the weights file `path`, as the config.json beside it says."""
    file = path.with_name("config.json")
    return _family(_settings(file), file)[1]


def image_size(path: Path) -> int:
    """Returns the edge, in pixels, of images that the positions of the weights file `path` are for; 0 = of any."""
    file = path.with_name("config.json")
    _, family, settings = _family(_settings(file), file)
    size = settings.get("image_size", 224) if family.has_positions else 0
    return size if type(size) is int and size > 0 else 0


def _activation(settings: Settings, family: Family) -> dict[str, Any]:
    """Returns {"activation": name}; nothing for the usual one, as studies have always recorded it."""
    found = settings.get(family.activation, family.activation_left_out)
    return {} if found == family.usual_activation else {"activation": found}


def _check_values(settings: Settings, family: Family, file: Path) -> None:
    allowed: dict[str, tuple[Any, ...]] = {name: (value,) for name, value in family.fixed.items()}
    allowed[family.activation] = family.activations
    for name, values in {**allowed, **family.stated}.items():
        found = settings.get(name, None if name in family.stated else values[0])
        if found not in values:
            raise UserError(f"{file}: {name} is {found!r}, allowed: {', '.join(map(repr, values))}")


def _check_known(settings: Settings, family: Family, file: Path) -> None:
    known, is_harmless = {"model_type", *family.known}, re.compile("|".join((*_HARMLESS, *family.harmless))).fullmatch
    for name, value in settings.items():
        if name not in known and value not in _OFF and not is_harmless(name):
            raise UserError(
                f"{file}: {name} is {str(value)[:40]!r}, which is not known here and may change what is computed, "
                "allowed: false or null; remove it if it changes nothing"
            )


def parameters(path: Path) -> dict[str, np.ndarray]:
    """Returns {path: array} of the .safetensors file `path`, kernels as [in, out]; heads and the pooler are left out.

    A name that no encoder of the family has is kept as it is. Raises UserError for a file that cannot be read.
    """
    file = path.with_name("config.json")
    _, family, settings = _family(_settings(file) if file.is_file() else {}, file)
    ignored, left_out = [], re.compile("|".join((*family.left_out, _IGNORED))).fullmatch

    def is_encoder(name: str) -> bool:
        if not family.paths(name) and left_out(name.removeprefix(family.prefix)):
            ignored.append(name)
        return name not in ignored

    found: dict[str, np.ndarray] = {}
    for target, name, array in family.leaves(safetensors_file.read_tensors(path, is_encoder)):
        if target in found:
            raise UserError(f"{path} holds {target} under two names, one of them {name!r}, allowed: one")
        found[target] = array
    if ignored:
        logging.getLogger(__name__).info("%s: not used: %s", path, ", ".join(ignored))
    return family.read(found, {**dict(family.defaults.values()), **settings})


def config_document(architecture: Mapping[str, Any], leaves: Mapping[str, np.ndarray] = _NO_LEAVES) -> dict[str, Any]:
    """Returns what transformers reads in config.json for an encoder of this architecture with these leaves."""
    family = FAMILIES[architecture["model"]]
    return {
        "model_type": architecture["model"],
        family.activation: architecture.get("activation", family.usual_activation),
        **family.fixed,
        **{name: values[0] for name, values in family.stated.items()},
        **{name: architecture[size] for size, name in family.sizes.items()},
        **{name: architecture[size] for size, (name, _) in family.defaults.items()},
        **family.describe(architecture, leaves),
    }


def tensors(leaves: Mapping[str, np.ndarray], architecture: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns {transformers' name: array} of an encoder's leaves {path: array}, dense weights [out, in]."""
    family = FAMILIES[architecture["model"]]
    return family.tensors(family.write(dict(leaves), architecture))
