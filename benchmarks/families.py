"""How long is the frozen pass of each family of text encoders, beside MiniLM's, at MiniLM's sizes?

python benchmarks/families.py [--families=bert,roberta,...] [--config.data.train_examples=500 ...]

Each is written as a directory in transformers' format, with random weights, and a head is trained on it as a study
does, from the directory, with features computed once. All have 6 blocks of width 384 with 12 heads and MiniLM's
tokenizer, so that they read the same tokens; a family takes longer by what it computes besides, such as relative
attention.
"""

import dataclasses
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import minilm
import numpy as np
from absl import flags
from safetensors.numpy import save_file

import finetune
from finetune import assets, models
from finetune.config import Config
from finetune.member.params import flatten
from finetune.models.weights import huggingface
from finetune.models.weights.families import FAMILIES

SIZES = {"width": 384, "depth": 6, "heads": 12, "mlp_width": 1536, "vocabulary": 30522, "positions": 512}
_BEHIND = {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
OTHERS: dict[str, dict[str, Any]] = {  # what a config.json says besides
    "bert": {"type_vocab_size": 2, "pad_token_id": 0},
    "roberta": _BEHIND,
    "xlm-roberta": _BEHIND,
    "camembert": _BEHIND,
    "distilbert": {"pad_token_id": 0, "sinusoidal_pos_embds": False},
    "electra": {"embedding_size": 384, "type_vocab_size": 2, "pad_token_id": 0},
    "mpnet": {"pad_token_id": 1, "layer_norm_eps": 1e-5, "relative_attention_num_buckets": 32},
    "modernbert": {"global_attn_every_n_layers": 3, "local_attention": 128},
    "deberta-v2": {
        "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": "p2c|c2p", "position_biased_input": False, "type_vocab_size": 0, "max_relative_positions": -1,
    },
}  # fmt: skip
_FAMILIES = flags.DEFINE_list("families", list(OTHERS), "families of text encoders, by model_type")
_CONFIG = minilm.define_config_flag()


def write(name: str, directory: Path) -> Path:
    """Writes a family at MiniLM's sizes, with weights from a seed, into a new directory, and returns that."""
    directory.mkdir()
    family = FAMILIES[name]
    sizes = {theirs: SIZES[ours] for ours, theirs in family.sizes.items() if ours in SIZES}
    settings = {"model_type": name, family.activation: family.usual_activation, **family.fixed, **sizes, **OTHERS[name]}
    (directory / "config.json").write_text(json.dumps(settings))
    save_file({"none": np.zeros(1, np.float32)}, directory / "model.safetensors")  # so that there are weights
    shutil.copy(assets.path("minilm") / "tokenizer.json", directory)
    example = {"input_ids": jax.ShapeDtypeStruct((8,), np.int32), "length": jax.ShapeDtypeStruct((), np.int32)}
    config = dataclasses.replace(Config().model, pretrained=str(directory))
    leaves = flatten(models.build(config, 2, example).init(jax.random.key(0)))
    encoder = {path: np.asarray(leaf) for path, leaf in leaves.items() if not path.startswith("head/")}
    tensors = huggingface.tensors(encoder, huggingface.architecture(directory / "model.safetensors"))
    save_file({each: np.ascontiguousarray(array) for each, array in tensors.items()}, directory / "model.safetensors")
    return directory


def seconds(config: Config, pretrained: str, workdir: Path) -> float:
    """Returns the seconds of the frozen pass of a study of a head on these weights."""
    model = dataclasses.replace(config.model, pretrained=pretrained)
    finetune.run(dataclasses.replace(config, model=model), workdir, grid={"learning_rate": [1e-3, 1e-2]})
    return float(json.loads((workdir / "summary.json").read_text())["seconds"]["trunk"])


def main() -> None:
    """Trains a head on each family between two of MiniLM, and prints what its pass took beside theirs."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        found, minilms = {}, [seconds(_CONFIG.value, "minilm", place / "minilm_0")]
        for number, name in enumerate(_FAMILIES.value, 1):
            found[name] = seconds(_CONFIG.value, str(write(name, place / name)), place / f"study_{name}")
            minilms.append(seconds(_CONFIG.value, "minilm", place / f"minilm_{number}"))
    print("family, seconds of the pass, of MiniLM's before and after, ratio")
    for (before, after), (name, own) in zip(itertools.pairwise(minilms), found.items(), strict=True):
        print(f"{name}, {own:.1f}, {before:.1f}, {after:.1f}, {2 * own / (before + after):.2f}")


if __name__ == "__main__":
    minilm.run(main)
