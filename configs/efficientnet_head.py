"""A linear head on EfficientNet-Lite0, handwritten digits scaled to 96 pixels.

    python -m finetune --config=configs/efficientnet_head.py --workdir=runs/efficientnet_head --seeds=3

To expect: test accuracy 0.967 in each of 3 seeds; a minute on 2 CPU cores, a quarter of it the pass of the frozen part
over the images, which the next study of the head takes from disk. A folder of images (split/class/file) instead:
--config.data.name=DIRECTORY.
"""

from finetune.config import Config


def get_config(arg: str = "") -> Config:
    """Returns the study; `arg` is not used."""
    del arg
    config = Config(trainable="head")
    config.model.name = "efficientnet"
    config.model.pretrained = "efficientnet_lite0"
    config.model.dropout_at = "head"
    config.data.name = "digits"
    config.data.image_size = 96
    config.hparams.learning_rate = 1e-2
    config.hparams.epochs = 20
    return config
