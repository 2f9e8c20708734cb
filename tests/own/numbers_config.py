"""A study of a number that texts stand for, by a model of as many weights as the longest text has tokens."""

import jax.numpy as jnp

import finetune
from finetune.config import DataConfig, HparamsConfig
from finetune.member.objective import make_objective


def task(classes, example):
    (tokens,) = example["input_ids"].shape

    def init(key):
        return {"head": {"kernel": jnp.full((tokens, 1), 0.1), "bias": jnp.zeros(1)}}

    def apply(params, batch, dropout, keys):
        ids = batch["input_ids"].astype(jnp.float32)
        return ids @ params["head"]["kernel"] + params["head"]["bias"][None]

    return finetune.from_functions(init, apply, objective=make_objective("regression"))


def get_config(arg=""):
    data = DataConfig(name=arg, text_column="review", label_column="stars", task="regression")
    data.tokenizer = arg.replace("rows.csv", "tokenizer.json")
    return finetune.Config(data=data, hparams=HparamsConfig(batch_size=8, epochs=2), trainable="all")
