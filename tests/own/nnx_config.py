"""A study of an NNX module of the user's own."""

from flax import nnx

import finetune
from finetune.config import DataConfig, HparamsConfig


class Network(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.convolutions = nnx.List([nnx.Conv(1, 6, (3, 3), rngs=rngs), nnx.Conv(6, 6, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, classes, rngs=rngs)

    def __call__(self, image):
        x = image / 16
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        return self.head(self.dropout(self.norm(x).mean((1, 2))))


def task(classes, example):
    blocks = ("convolutions/0", "convolutions/1")
    return finetune.from_nnx(lambda rngs: Network(classes, rngs=rngs), example, blocks=blocks)


def get_config(arg=""):
    data = DataConfig(name="digits", train_examples=40, validation_examples=30)
    return finetune.Config(data=data, hparams=HparamsConfig(batch_size=16, epochs=2), trainable="all")
