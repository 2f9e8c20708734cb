"""A small ViT from scratch on handwritten digits.

python -m finetune --config=configs/digits_vit.py --workdir=runs/digits
"""

from finetune.config import Config


def get_config(arg: str = "") -> Config:
    """Returns the study; `arg` is not used."""
    del arg
    config = Config(trainable="all")
    config.model.name = "vit"
    config.model.pretrained = ""
    config.model.width, config.model.depth, config.model.heads, config.model.mlp_width = 48, 3, 4, 96
    config.model.patch_size = 2
    config.data.name = "digits"
    config.hparams.learning_rate = 3e-3
    config.hparams.epochs = 20
    return config
