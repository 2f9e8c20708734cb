"""A study of a Linen module of the user's own: dropout and batch normalisation, as they come."""

import flax.linen as nn

import finetune
from finetune.config import DataConfig, HparamsConfig, ModelConfig


class Network(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, image, train):
        x = nn.relu(nn.Conv(8, (3, 3), name="conv")(image / 16))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.classes, name="head")(x)


def task(classes, example):
    return finetune.from_linen(Network(classes), example)


def get_config(arg=""):
    data = DataConfig(name="digits", train_examples=40, validation_examples=30)
    hparams = HparamsConfig(batch_size=16, epochs=2)
    return finetune.Config(model=ModelConfig(pretrained=""), data=data, hparams=hparams, trainable="all")
