"""Every setting of a study: its default, its unit, and what it may be. A config file returns a `Config`.

Typed overrides come from the command line: --config.optimizer.name=sgd. The scalars in `HparamsConfig` are the
defaults of a trial; a grid varies them.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune import declaration
from finetune.data_config import DataConfig as DataConfig
from finetune.declaration import LARGEST, Range, fields, setting
from finetune.errors import UserError, one_of

_NON_NEGATIVE = Range(0.0, math.inf, high_excluded=True)
_POSITIVE = Range(0.0, math.inf, high_excluded=True, low_excluded=True)
_ABOVE_ZERO = Range(0.0, 1.0, low_excluded=True)
_BELOW_ONE = Range(0.0, 1.0, high_excluded=True)
_COUNT, _SEED = Range(1, LARGEST), Range(0, LARGEST)
_DTYPES = ("float32", "bfloat16")
_FINITE = Range(0.0, math.inf, high_excluded=True, words="0 or more, and finite")

OWN_RATES = -1.0  # in place of a dropout rate: each layer drops at the one that it was built with
TEMPERATURE = 0.05  # of similarities, where it is not set, and of losses that are told
POOLINGS = ("mean", "first", "max")


@dataclass
class ModelConfig:
    name: str = setting("bert", "bert (or any other that model.pretrained is of), vit, efficientnet")
    pretrained: str = setting(
        "minilm",
        "where the weights come from: the name of an asset (python -m finetune.assets lists them), a .safetensors file "
        "or a directory that holds model.safetensors and config.json, a ViT .npz, or the work directory of an earlier "
        "study, whose best trial is taken; empty = random weights",
    )
    dtype: str = setting("float32", "of the computation; parameters and losses stay float32", _DTYPES)
    dropout_at: str = setting(
        "all", "where `dropout` acts: all (embeddings, attention, blocks, head), head (its input only)", ("all", "head")
    )
    pooling: str = setting(
        "auto",
        "over positions: mean (of those not padded), first (an export of which pipelines of transformers run), max; "
        "auto = as the weights declare, else mean",
        ("auto", *POOLINGS),
    )
    batch_norm: str = setting("frozen", "of a ResNet; live: of each batch where its scale trains", ("frozen", "live"))
    # Sizes of a model that has no checkpoint to take them from.
    width: int = setting(0, "of the residual stream; 0 = from the checkpoint, as the next four")
    depth: int = setting(0, "blocks")
    heads: int = setting(0, "attention heads of a block")
    mlp_width: int = setting(0, "hidden units of a block's MLP")
    patch_size: int = setting(0, "pixels, edge of a ViT patch")


@dataclass
class HparamsConfig:
    """The defaults of a trial's hyperparameters; their order is that of the program's arrays."""

    learning_rate: float = setting(1e-3, "peak", _NON_NEGATIVE)
    warmup_fraction: float = setting(0.1, "of all updates", Range(0.0, 1.0))
    weight_decay: float = setting(0.0, "decoupled, of the leaves that decay", _NON_NEGATIVE)
    l2: float = setting(0.0, "penalty ½·l2·|p|² on the leaves that decay", _NON_NEGATIVE)
    l1: float = setting(0.0, "penalty l1·|p| on the leaves that decay", _NON_NEGATIVE)
    l2_sp: float = setting(0.0, "penalty ½·l2_sp·|p − pretrained|² on leaves with pretrained weights", _NON_NEGATIVE)
    dropout: float = setting(
        OWN_RATES,
        "rate; -1 = not set: that of each dropout layer of a model of your own, 0 in other models",
        Range(0.0, 1.0, high_excluded=True, besides=OWN_RATES),
    )
    label_smoothing: float = setting(0.0, "share given to the uniform distribution", _BELOW_ONE)
    focal_gamma: float = setting(
        0.0,
        "focal loss: the loss of an example is multiplied by (1 - probability of its class)^focal_gamma; 0 = it is not",
        _NON_NEGATIVE,
        later=True,
    )
    temperature: float = setting(
        TEMPERATURE, "of contrastive: what similarities are divided by in the loss of training", _POSITIVE, later=True
    )
    clip_norm: float = setting(0.0, "global norm of the gradient, 0 = no clipping", _NON_NEGATIVE)
    layer_decay: float = setting(1.0, "times the rate for each layer below the output", _ABOVE_ZERO)
    momentum: float = setting(0.9, "of sgd", _BELOW_ONE)
    beta1: float = setting(0.9, "of adamw and lion", _BELOW_ONE)
    beta2: float = setting(0.999, "of adamw and lion", _BELOW_ONE)
    lora_rank: int = setting(8, "columns of an adapter; no effect without lora in `trainable`, as the next two", _COUNT)
    lora_alpha: float = setting(16.0, "scale of the adapters, see lora.scaling", _POSITIVE)
    lora_ratio: float = setting(1.0, "LoRA+: learning rate of B over that of A", _POSITIVE)
    batch_size: int = setting(32, "examples an update", _COUNT)
    epochs: int = setting(10, "passes over the training split, and the horizon of the schedule", _COUNT)
    seed: int = setting(0, "head initialisation and dropout", _SEED)
    data_seed: int = setting(0, "order of the examples", _SEED)


@dataclass
class LoraConfig:
    targets: str = setting(
        "blocks",
        "dense layers with adapters where `trainable` holds lora: blocks (all within blocks), attention, mlp (those "
        'below a module of that name), or path patterns; several joined by "+"',
    )
    scaling: str = setting(
        "alpha/rank", "of what an adapter adds; alpha/sqrt(rank) is rsLoRA", ("alpha/rank", "alpha/sqrt(rank)")
    )


@dataclass
class OptimizerConfig:
    name: str = setting("adamw", "the update", ("adamw", "sgd", "lion"))
    schedule: str = setting("cosine", "from 1 towards 0, after a linear warm-up", ("constant", "linear", "cosine"))
    decay_coupling: str = setting(
        "learning_rate", "decay per update: times learning_rate, or independent", ("learning_rate", "independent")
    )
    epsilon: float = setting(1e-8, "of adamw", Range(0.0, math.inf, True, True, words="above 0 and finite"))
    decayed: str = setting("matrices", "leaves that decay: matrices (two axes or more), all", ("matrices", "all"))
    multipliers: tuple[str, ...] = setting(
        (),
        'factors of the learning rate, each PATTERN=FACTOR, such as ("block_*/attention=0.5", "**/bias=2"); a pattern '
        "is a word or a path pattern of `trainable`, and the first that hits a leaf counts",
    )


@dataclass
class LossConfig:
    class_weights: tuple[str, ...] = setting(
        (),
        "what the loss of an example is multiplied by in training, by its class: balanced (examples / classes / "
        "examples of the class), or CLASS=WEIGHT for some, 1 for others; empty = 1",
        later=True,
    )


@dataclass
class EvaluationConfig:
    batch_size: int = setting(128, "examples a forward pass", Range(1, LARGEST, words="1 or more"), of_result=False)
    metric: str = setting(
        "",
        "chosen on, on the validation split: loss, or a metric of the task; empty = accuracy, of multilabel micro_f1, "
        "of regression rmse, of tokens whose tags are O, B-TYPE and I-TYPE entity_f1",
    )
    metrics: tuple[str, ...] = setting(
        (),
        "others to report. classification: accuracy, macro_f1, matthews, auc; multilabel: accuracy (all labels right), "
        "micro_f1, macro_f1, auc; regression: rmse (in units of the target), spearman, pearson; choice: accuracy; "
        "question_answering: exact_match, f1 (of words, as SQuAD's script); "
        "contrastive: accuracy (the text that belongs is the most similar of the split), reciprocal_rank; tokens: "
        "accuracy (of all words), macro_f1, matthews, entity_f1 (entities found whole and of the right type)",
    )
    worth: float = setting(
        0.0,
        "the smallest difference of the metric that matters in practice, told in the answer; 0 = any",
        Range(0.0, math.inf, words="0 or more"),
        of_result=False,
    )
    batch_norm_batches: int = setting(
        0,
        "training batches from which the running averages of batch normalisation are taken anew before each "
        "evaluation, where it trains; 0 = the averages as training leaves them",
    )


@dataclass
class ExecutionConfig:
    mode: str = setting("auto", "auto = measured", ("auto", "vmap", "loop"), of_result=False)
    chunk: int = setting(0, "members a program; 0 = as many as fit", of_result=False)
    devices: int = setting(0, "of this process; 0 = all", of_result=False)
    epochs_on_device: str = setting(
        "auto", "one call an epoch (scan) or a batch (step); auto = measured", ("auto", "scan", "step"), of_result=False
    )


@dataclass
class TrunkConfig:
    mode: str = setting(
        "auto",
        "what is frozen is computed by each member (none), once a batch for all members (shared), or once for all "
        "members and epochs (cached); auto = cached where it pays and fits",
        ("auto", "none", "shared", "cached"),
        of_result=False,
    )
    dtype: str = setting("float32", "of cached features; with bfloat16, auto is cached", _DTYPES)
    store: str = setting("", "where features stay for the next study; empty = the cache of assets", of_result=False)
    store_gigabytes: float = setting(
        10.0, "of all features kept there, the oldest dropped first; 0 = none", _FINITE, of_result=False
    )


@dataclass
class CheckpointConfig:
    keep: int = setting(3, "trials whose weights are kept, best first", of_result=False)
    trials: tuple[str, ...] = setting((), "ids of others whose weights are kept too", of_result=False)
    interval_seconds: float = setting(
        60.0, "between saves of what is being trained; 0 = after every epoch", _FINITE, of_result=False
    )


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    hparams: HparamsConfig = field(default_factory=HparamsConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    trainable: str = setting(
        "head",
        "what trains: all, head, last:K, first:K, bias, norm, lora, names of `parts`, or path patterns, joined by "
        '"+"; a term after "!" freezes. Such as "last:2+norm", "block_5/*+head/*", "all+!embeddings". A chain such as '
        '"head>all" starts each stage from the best trial of the one before, which the grid has too',
    )
    parts: tuple[str, ...] = setting(
        (),
        'selections with a name, each NAME=SPEC, such as ("queries=block_*/attention/query",): words of `trainable`',
    )


_SECTIONS: dict[str, Any] = {
    each.name: each.default_factory for each in dataclasses.fields(Config) if not each.metadata
}
DECLARED: dict[str, Mapping[str, Any]] = {  # what is declared of every setting, by its dotted name
    prefix + each.name: each.metadata
    for prefix, kind in [("", Config), *((f"{name}.", section) for name, section in _SECTIONS.items())]
    for each in dataclasses.fields(kind)
    if each.metadata
}
CHOICES = {name: about["allowed"] for name, about in DECLARED.items() if isinstance(about["allowed"], tuple)}
LATER = tuple(name for name, about in DECLARED.items() if about["later"])
OF_NO_RESULT = tuple(name for name, about in DECLARED.items() if not about["of_result"])

USUAL_MAX_LENGTH = 128  # tokens of a text, where nothing declares how many
OWN_MODEL = "own"  # what model.name becomes where the user brings a model


def help_lines() -> Iterator[str]:
    """Yields a line for every setting: its name, its default, what it is, and what it may be."""
    for name, default in fields(Config()):
        what, allowed = DECLARED[name]["what"], DECLARED[name]["allowed"]
        words = ", ".join(allowed) if isinstance(allowed, tuple) else allowed
        yield f"{name} = {default!r}: {what}" + (f"; allowed: {words}" if words else "")


def checked(config: object) -> Config:
    """Returns a copy of a config with numbers and texts of NumPy as Python's; raises UserError as `check` does."""
    if not isinstance(config, Config):
        raise UserError(f"config is {config!r}, allowed: a finetune.Config, as a config file's get_config() gives")
    _check_sections(config)
    found = copy.deepcopy(config)
    for section in (found, *(getattr(found, name) for name in _SECTIONS)):
        for name, value in vars(section).items():
            if isinstance(value, np.generic):  # float32 0.001 is 0.001, as in hparams.py
                plain = float(str(value)) if isinstance(value, np.floating) else value.item()
                setattr(section, name, plain)
    check(found)
    return found


def _check_sections(config: Config) -> None:
    for name, wanted in _SECTIONS.items():
        found = getattr(config, name)
        if not isinstance(found, wanted):
            raise UserError(f"{name} is {found!r}, allowed: a finetune.config.{wanted.__name__}")


def check(config: Config) -> None:
    """Raises UserError for a setting that is unknown, of another type or outside its closed list, or no valid count."""
    _check_sections(config)
    defaults = dict(fields(Config()))
    for name, value in fields(config):
        if name not in defaults:
            raise one_of("setting", name, defaults)
        of_a_trial = name.startswith("hparams.")  # its range is checked where those of a grid are
        declaration.check(name, value, defaults[name], None if of_a_trial else DECLARED[name]["allowed"])
    if not config.data.name:
        raise UserError(
            "data.name is empty, allowed: a packaged set, tfds:NAME, or a path, --config.data.name=reviews.csv"
        )
    if config.trunk.dtype != "float32" and config.trunk.mode not in ("auto", "cached"):
        raise UserError(
            f"trunk.dtype is {config.trunk.dtype!r} and trunk.mode {config.trunk.mode!r}, which caches nothing, "
            "allowed: trunk.mode auto or cached"
        )
    if config.trunk.mode == "none" and config.execution.mode == "vmap":
        raise UserError("trunk.mode is 'none' and execution.mode 'vmap', which shares what is frozen, allowed: 'loop'")
