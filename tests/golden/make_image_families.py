"""Writes tests/golden/families/images: python -m tests.golden.make_image_families, with torch and transformers 5.24.

Each file holds the config.json of a tiny encoder, the shapes of its tensors as transformers stores them, whose values
`families.draw` gives, and what transformers computes of `families.pixels`, scaled to -1 to 1, of its own size and of
another; and the tensors of its class with a head, which images of that class it is.
"""

import json
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from tests.helpers import families

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"image_size": 12, "patch_size": 4}
DINO = {name: value for name, value in SIZES.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
RESNET = {"depths": [1, 2], "hidden_sizes": [8, 12], "embedding_size": 6}
CASES = {
    "vit": SIZES,
    "vit_tanh": SIZES | {"hidden_act": "gelu_pytorch_tanh"},
    "deit": SIZES,
    "dinov2": DINO,
    "dinov2_gated": DINO | {"use_swiglu_ffn": True},
    "dinov2-with-registers": DINO | {"num_register_tokens": 2},
    "clip-vision-model": SIZES,
    "siglip-vision-model": SIZES,
    "convnext": {"depths": [1, 1, 2], "hidden_sizes": [4, 6, 8], "num_stages": 3, "patch_size": 3},
    "resnet": RESNET,
    "resnet_basic": RESNET | {"layer_type": "basic", "downsample_in_first_stage": True},
    "resnet_early": RESNET | {"downsample_in_bottleneck": True, "hidden_act": "gelu"},
}
OTHER_SIZE = [20, 8]


def make(name: str, settings: dict) -> dict:
    """Returns what the file of a case holds."""
    config = transformers.AutoConfig.for_model(name.split("_")[0].replace("-", "_"), **settings)
    shapes = shapes_of(transformers.AutoModel.from_config(config))
    with tempfile.TemporaryDirectory() as directory:
        place = families.write(families.Path(directory) / "weights", config.to_dict(), families.draw(shapes))
        model = transformers.AutoModel.from_pretrained(place, attn_implementation="eager").eval()
    found = {"config": json.loads(config.to_json_string()), "shapes": shapes}
    edge = settings.get("image_size")
    size = [edge, edge] if edge else [29, 26]  # what has stages takes any
    found |= {"size": size, **computed(model, size, {})}
    if "hidden_size" in settings:
        flag = {} if name.startswith("dinov2") else {"interpolate_pos_encoding": True}
        resized = computed(model, OTHER_SIZE, flag)
        found["resized"] = {"size": OTHER_SIZE, "hidden": resized["hidden"]}
    config.num_labels = 3
    try:
        model = transformers.AutoModelForImageClassification.from_config(config)
        found["class"] = {"name": type(model).__name__, "shapes": shapes_of(model)}
    except ValueError:  # there is none
        found["class"] = None
    return found


def computed(model: transformers.PreTrainedModel, size: list[int], flag: dict) -> dict:
    """Returns the last hidden states and what the model pools, rounded."""
    pixels = families.pixels(2, *size, 3).transpose(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        found = model(pixel_values=torch.tensor(pixels.astype(np.float32)), **flag)
    return {
        "hidden": np.round(found.last_hidden_state.numpy(), 6).tolist(),
        "pooled": np.round(found.pooler_output.numpy(), 6).reshape(2, -1).tolist(),
    }


def shapes_of(model: transformers.PreTrainedModel) -> dict:
    """Returns the shapes of the tensors of a file as transformers writes it."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        return {name: list(each.shape) for name, each in load_file(f"{directory}/model.safetensors").items()}


if __name__ == "__main__":
    (families.GOLDEN / "images").mkdir(exist_ok=True)
    for case, settings in CASES.items():
        text = json.dumps(make(case, settings), separators=(",", ":"))
        (families.GOLDEN / "images" / f"{case}.json").write_text(text + "\n")
