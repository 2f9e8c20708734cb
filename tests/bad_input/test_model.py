"""Mistakes in the choice of a model and in its weights."""

import pytest
from mistakes import BERT

# name: (arguments, words of the line). {inputs} holds what the fixture `inputs` wrote.
MODEL = {
    "unknown model": (["--config.model.name=vitt"], ["model.name", "'vitt'", "'vit'"]),
    "no sizes": (["--config.model.width=0"], ["model.width", "0", "1 or more"]),
    "heads that do not divide": (["--config.model.heads=3"], ["model.heads is 3", "divisors of the width, 8"]),
    "patches that do not fit": (["--config.model.patch_size=3"], ["8 x 8", "patch size 3"]),
    "unknown weights": (["--config.model.pretrained=minilmm"], ["model.pretrained", "'minilmm'", "'minilm'"]),
    "weights that are not": (["--config.model.pretrained={inputs}/texts.csv"], ["texts.csv", ".safetensors, .npz"]),
    "directory without weights": (["--config.model.pretrained={inputs}/empty"], ["empty", "no model.safetensors"]),
    "truncated weights": (["--config.model.pretrained={inputs}/cut.npz"], ["cut.npz", "cannot read"]),
    "other weights": (["--config.model.pretrained={inputs}/bert"], ["bert", "weights of a 'bert'", "'vit'"]),
    "corrupt safetensors": (
        [*BERT, "--config.data.name={inputs}/texts.csv", "--config.model.pretrained={inputs}/bert"]
        + [f"--config.model.{size}=0" for size in ("width", "depth", "heads", "mlp_width")],
        ["model.safetensors", "cannot read"],
    ),
    "text for a ViT": (
        ["--config.data.name={inputs}/texts.csv", *BERT[2:]],
        ["model.name is 'vit'", "input_ids", "bert"],
    ),
    "images for BERT": ([*BERT[:2]], ["model.name is 'bert'", "image", "vit"]),
}


@pytest.mark.parametrize("arguments, words", MODEL.values(), ids=MODEL)
def test_model(refused, arguments, words):
    refused(arguments, words)
