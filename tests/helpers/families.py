"""Tiny checkpoints of families: weights from a seed, and what transformers computed with them (tests/golden/families).

python -m tests.golden.make_families, and make_image_families, write the files anew; they need torch and transformers,
and the tests do not.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
NAMES = sorted(file.stem for file in GOLDEN.glob("*.json"))
IMAGES = sorted(file.stem for file in (GOLDEN / "images").glob("*.json"))


def golden(name):
    """Returns config, shapes of tensors, inputs, hidden states, and tensors of classes with a head."""
    file = GOLDEN / "images" / f"{name}.json"
    return json.loads((file if name in IMAGES else GOLDEN / f"{name}.json").read_text())


def pixels(*shape):
    """Returns uint8 images of a shape, the same for ever."""
    return np.random.RandomState(7).randint(0, 256, shape).astype(np.uint8)


def draw(shapes):
    """Returns {name: array} of {name: shape}, the same for ever: RandomState's numbers do not change."""
    random = np.random.RandomState(11)
    tensors = {name: random.standard_normal(shape).astype(np.float32) for name, shape in sorted(shapes.items())}
    tensors = {name: 1 + 0.2 * each if _is_scale(name) else 0.4 * each for name, each in tensors.items()}
    counts = {name: np.zeros((), np.int64) for name in tensors if name.endswith("num_batches_tracked")}
    return tensors | counts


def _is_scale(name):
    module, _, leaf = name.rpartition(".")
    return leaf == "running_var" or (leaf == "weight" and "norm" in module.rpartition(".")[2].lower())


def write(directory, config, tensors):
    """Writes model.safetensors and config.json into a new directory."""
    directory.mkdir()
    save_file({name: np.array(each, order="C") for name, each in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory
