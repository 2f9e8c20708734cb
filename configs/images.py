"""Your own images: a linear head on EfficientNet-Lite0, or on an encoder of yours, 5 learning rates x 3 seeds.

    finetune run --config=images --config.data.name=FOLDER --workdir=runs/mine [--config.data.image_size=128]

A folder of images, split/class/file or class/file. What is frozen runs over the images once, for all trials. With
--config.model.pretrained=DIR, of transformers' own format, --config.data.image_size=0 takes the size that the files
beside the weights name.
To expect, of 1,000 images of 96 pixels: a minute on 2 CPU cores.
"""

from collections.abc import Iterator

from finetune.config import Config


def get_config(arg: str = "") -> Config:
    """Returns the study; `arg` is not used."""
    del arg
    config = Config(trainable="head")
    config.model.pretrained = "efficientnet_lite0"
    config.model.dropout_at = "head"
    config.data.name = ""  # yours
    config.data.image_size = 96
    config.hparams.epochs = 20
    return config


def sweep() -> Iterator[dict[str, float]]:
    """Yields 5 learning rates x 3 seeds."""
    for learning_rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        for seed in range(3):
            yield {"learning_rate": learning_rate, "seed": seed}
