"""Heads on a frozen encoder as a careful user of PyTorch trains them: one trial after another.

AdamW on the head, linear warm-up and cosine, accuracy on the validation texts after every epoch, and on the test texts
with the head of the best epoch. The encoder is transformers' BertModel with scaled_dot_product_attention, in eval mode
and under inference_mode. A batch is padded to its longest text and no further, and where the order does not matter
texts are sorted by length first.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers import BertModel
from transformers import logging as transformers_logging

_EVAL_BATCH = 32


class Texts(NamedTuple):
    """A split of the data."""

    ids: torch.Tensor  # int64 [N, T]
    length: torch.Tensor  # int64 [N], without padding
    label: torch.Tensor  # int64 [N]


class Encoded(NamedTuple):
    """Where heads take their features [B, D] from, computed when they are asked for or earlier."""

    batch: Callable[[torch.Tensor], torch.Tensor]  # places in the training split [B]
    whole: Callable[[str], torch.Tensor]  # name of a split


class Start(NamedTuple):
    """Where a head starts and the order in which it reads the texts, so that both sides train the same trials."""

    weight: np.ndarray  # [classes, D]
    bias: np.ndarray  # [classes]
    orders: list[np.ndarray]  # of each epoch: places in the training split, int64 [N]


class Outcome(NamedTuple):
    """What a trial has reached."""

    validation_accuracy: float
    test_accuracy: float


def texts(split: Mapping[str, np.ndarray]) -> Texts:
    """Returns a split as tensors."""
    return Texts(*(torch.from_numpy(split[name].astype(np.int64)) for name in ("input_ids", "length", "label")))


def load(directory: Path) -> BertModel:
    """Returns the encoder from a directory with model.safetensors and config.json."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {"add_pooling_layer": False, "attn_implementation": "sdpa", "local_files_only": True}
    return BertModel.from_pretrained(str(directory), **options).eval()


@torch.inference_mode()
def encode(encoder: BertModel, split: Texts, places: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Returns the mean over the tokens of texts [B], shape [B, D]."""
    length = split.length[places]
    ids = split.ids[places, : int(length.max())]
    mask = torch.arange(ids.shape[1]) < length[:, None]
    hidden = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return (hidden * mask[..., None]).sum(1) / length[:, None]


@torch.inference_mode()
def encode_all(encoder: BertModel, split: Texts) -> torch.Tensor:
    """Returns the features of a split [N, D], in its order."""
    order = torch.argsort(split.length, stable=True)
    features = torch.cat([encode(encoder, split, places) for places in order.split(_EVAL_BATCH)])
    return features[torch.argsort(order)]


def as_needed(encoder: BertModel, splits: Mapping[str, Texts]) -> Encoded:
    """Returns features that are computed anew in every step."""
    return Encoded(
        lambda places: encode(encoder, splits["train"], places).clone(),  # autograd takes no inference tensors
        lambda name: encode_all(encoder, splits[name]),
    )


def in_advance(encoder: BertModel, splits: Mapping[str, Texts]) -> Encoded:
    """Returns features that are computed here, once."""
    features = {name: encode_all(encoder, split).clone() for name, split in splits.items()}
    return Encoded(lambda places: features["train"][places], lambda name: features[name])


def train(hparams: Mapping[str, Any], start: Start, splits: Mapping[str, Texts], encoded: Encoded) -> Outcome:
    """Trains one head with the hyperparameters of a trial."""
    weight, bias = (torch.tensor(array, requires_grad=True) for array in (start.weight, start.bias))
    groups = [{"params": [weight], "weight_decay": hparams["weight_decay"]}, {"params": [bias]}]
    betas = hparams["beta1"], hparams["beta2"]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8, weight_decay=0.0, fused=True)
    labels, batch = splits["train"].label, hparams["batch_size"]
    rates = _rates(hparams, hparams["epochs"] * math.ceil(len(labels) / batch))
    best, kept = -1.0, (weight, bias)
    for order in start.orders[: hparams["epochs"]]:
        for places in torch.from_numpy(order).split(batch):
            rate = next(rates)
            for group in optimizer.param_groups:
                group["lr"] = rate
            logits = functional.linear(encoded.batch(places), weight, bias)
            loss = functional.cross_entropy(logits, labels[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy = _accuracy(weight, bias, encoded.whole("validation"), splits["validation"].label)
        if accuracy > best:
            best, kept = accuracy, (weight.detach().clone(), bias.detach().clone())
    return Outcome(best, _accuracy(*kept, encoded.whole("test"), splits["test"].label))


def _rates(hparams: Mapping[str, Any], total: int) -> Iterator[float]:
    """Returns an iterator over the learning rates of all updates: linear warm-up, then a cosine to zero."""
    warmup = hparams["warmup_fraction"] * total
    update = np.arange(total)
    rise = np.minimum(1.0, (update + 1) / max(warmup, 1.0))
    share = np.clip((update - warmup) / max(total - warmup, 1.0), 0.0, 1.0)
    return iter((hparams["learning_rate"] * rise * (1 + np.cos(np.pi * share)) / 2).tolist())


@torch.inference_mode()
def _accuracy(weight: torch.Tensor, bias: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> float:
    logits = functional.linear(features, weight, bias)
    return float((logits.argmax(1) == labels).float().mean())


def tune_threads(call: Callable[[], Any]) -> None:
    """Sets the number of threads with which a call takes the least time: half the cores, all of them, or one."""
    cores = os.cpu_count() or 1
    seconds = {}
    for threads in {1, max(1, cores // 2), cores}:
        torch.set_num_threads(threads)
        call()
        started = time.monotonic()
        call()
        seconds[threads] = time.monotonic() - started
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))
