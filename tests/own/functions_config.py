"""A study of plain functions of the user's own."""

import jax
import jax.numpy as jnp

import finetune
from finetune.config import DataConfig, HparamsConfig
from finetune.member.dropout import dropout as drop


def task(classes, example):
    def init(key):
        hidden, head = jax.random.split(key)
        return {
            "hidden": {"kernel": 0.1 * jax.random.normal(hidden, (64, 16))},
            "head": {"kernel": 0.1 * jax.random.normal(head, (16, classes)), "bias": jnp.zeros(classes)},
        }

    def apply(params, batch, dropout, keys):
        x = jnp.tanh(batch["image"].reshape(-1, 64) / 16 @ params["hidden"]["kernel"])
        return drop(x, dropout, keys, site=0) @ params["head"]["kernel"] + params["head"]["bias"][None]

    return finetune.from_functions(init, apply)


def get_config(arg=""):
    data = DataConfig(name="digits", train_examples=40, validation_examples=30)
    return finetune.Config(data=data, hparams=HparamsConfig(batch_size=16, epochs=2), trainable="all")
