"""Mistakes in the choice of a model and in its weights.

name: (arguments, words of the line); {inputs} holds what `files.write` wrote.
"""

from tests.helpers.mistakes import BERT

EFFICIENTNET = ("--config.model.name=efficientnet",)
# A BERT whose sizes come from its weights.
FOREIGN = (*BERT, "--config.data.name={inputs}/texts.csv")
FOREIGN += tuple(f"--config.model.{size}=0" for size in ("width", "depth", "heads", "mlp_width"))

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
        [*FOREIGN, "--config.model.pretrained={inputs}/bert"],
        ["model.safetensors", "cannot read"],
    ),
    "text for a ViT": (
        ["--config.data.name={inputs}/texts.csv", *BERT[2:]],
        ["model.name is 'vit'", "input_ids", "bert"],
    ),
    "images for BERT": ([*BERT[:2]], ["model.name is 'bert'", "image", "vit"]),
    "empty safetensors": ([*FOREIGN, "--config.model.pretrained={inputs}/void"], ["model.safetensors", "cannot read"]),
    "pickled weights": (
        ["--config.model.pretrained={inputs}/pickled"],
        ["pytorch_model.bin", "pickle", ".safetensors"],
    ),
    "pickled file": (["--config.model.pretrained={inputs}/pickled/pytorch_model.bin"], ["pickle", ".safetensors"]),
    "blocks without end": (
        [*FOREIGN, "--config.model.pretrained={inputs}/deep"],
        ["model.depth", "1000000000", "1000"],
    ),
    "absurd width": (
        [*FOREIGN, "--config.model.pretrained={inputs}/wide"],
        ["model.width", "1099511627776", "at most"],
    ),
    "width of a fraction": ([*FOREIGN, "--config.model.pretrained={inputs}/fraction"], ["model.width", "8.5"]),
    "infinite epsilon": ([*FOREIGN, "--config.model.pretrained={inputs}/infinite"], ["model.epsilon", "inf"]),
    "other activation": ([*FOREIGN, "--config.model.pretrained={inputs}/tanh"], ["hidden_act", "'tanh'", "'gelu'"]),
    "settings that lack": ([*FOREIGN, "--config.model.pretrained={inputs}/lacking"], ["config.json", "vocab_size"]),
    "settings that are none": (
        [*FOREIGN, "--config.model.pretrained={inputs}/list"],
        ["config.json", "no JSON object"],
    ),
    "settings without end": ([*FOREIGN, "--config.model.pretrained={inputs}/nested"], ["config.json", "not JSON"]),
    "blocks without weights": (["--config.model.depth=1001"], ["model.depth", "1001", "1000"]),
    "images too small": ([*EFFICIENTNET], ["images are 8 x 8 pixels", "32 or more", "data.image_size"]),
    "four channels": (
        [*EFFICIENTNET, *BERT[3:], "--config.data.name={inputs}/channels.npz"],
        ["images have 4 channels", "1 (grey) or 3 (RGB)"],
    ),
    "width of no EfficientNet": (
        [*EFFICIENTNET, "--config.data.image_size=32", "--config.model.width=6"],
        ["model.width is 6", "multiples of 4"],
    ),
    "more blocks than there are": (
        [*EFFICIENTNET, "--config.data.image_size=32", "--config.model.depth=17"],
        ["model.depth is 17", "1 to 16"],
    ),
    "a BERT for an EfficientNet": (
        [*EFFICIENTNET, "--config.data.image_size=32", "--config.model.pretrained={inputs}/bert"],
        ["weights of a 'bert'", "'efficientnet'"],
    ),
    "weights of other channels": (
        [*EFFICIENTNET, "--config.data.image_size=32", "--config.model.pretrained={inputs}/network"],
        ["do not fit the model", "1 missing: block_0/depthwise/kernel", "1 unexpected: block_7/depthwise/kernel"],
    ),
    "pickled weights of an EfficientNet": (
        [*EFFICIENTNET, "--config.data.image_size=32", "--config.model.pretrained={inputs}/lite0.pth"],
        ["lite0.pth is a pickle", ".safetensors"],
    ),
}
