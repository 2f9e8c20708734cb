"""Every setting of a study: its unit, what it may be, and its default. A config file returns a `Config`.

Typed overrides come from the command line: --config.optimizer.name=sgd. The scalars in `HparamsConfig` are the
defaults of a trial; a grid varies them.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.errors import UserError, one_of


@dataclass
class ModelConfig:
    # A model of finetune/models: bert, vit, efficientnet. With bert, the config.json of the weights says which of the
    # families of text encoders it is.
    name: str = "bert"
    # Where the weights come from: the name of an asset (python -m finetune.assets lists them), a .safetensors file
    # or a directory that holds model.safetensors and config.json, a ViT .npz, or the work directory of an earlier
    # study, whose best trial is taken. Empty: random weights.
    pretrained: str = "minilm"
    dtype: str = "float32"  # of the computation: float32, bfloat16; parameters and losses stay float32
    dropout_at: str = "all"  # where `dropout` acts: all (embeddings, attention, blocks, head), head (its input only)
    # Over positions: mean (of those not padded), first (an export of which pipelines of transformers run), max; auto =
    # as the weights declare, else mean.
    pooling: str = "auto"
    # Sizes of a model that has no checkpoint to take them from; 0 = from the checkpoint.
    width: int = 0  # of the residual stream
    depth: int = 0  # blocks
    heads: int = 0  # attention heads of a block
    mlp_width: int = 0  # hidden units of a block's MLP
    patch_size: int = 0  # pixels, edge of a ViT patch


@dataclass
class DataConfig:
    # A packaged set (r8, r52, 20newsgroups, digits), tfds:NAME, the directory of a prepared TFDS builder, a .csv,
    # .tsv or .jsonl file or a directory of them called train, validation and test, an image folder
    # (split/class/file), or an .npz file with arrays x_train, y_train and so on.
    name: str = "r8"
    # What a label is: one class (classification), any number of classes (multilabel), a number (regression), or
    # a class for each word (tokens): .jsonl rows with a list of words and one of tags.
    task: str = "classification"
    text_column: str = "text"  # of delimited files and TFDS sets
    label_column: str = "label"
    label_separator: str = "|"  # of the labels in a field, for multilabel; a .jsonl file may hold lists
    tokenizer: str = ""  # path of a tokenizer.json; empty = the one beside the pretrained weights
    max_length: int = 0  # tokens; longer texts are cut; 0 = as the pretrained weights declare, else 128
    image_size: int = 0  # pixels, edge; 0 = as stored
    train_examples: int = 0  # stratified subset of the training split; 0 = all
    validation_examples: int = 0  # taken from the training split if the set has none; 0 = a fifth of it
    split_seed: int = 0  # of the validation split and the subset
    classes: tuple[str, ...] = ()  # keep only these labels; empty = all


@dataclass
class HparamsConfig:
    learning_rate: float = 1e-3  # peak, >= 0
    warmup_fraction: float = 0.1  # of all updates, 0..1
    weight_decay: float = 0.0  # decoupled, of the leaves that decay, >= 0
    l2: float = 0.0  # penalty ½·l2·|p|² on the leaves that decay, >= 0
    l1: float = 0.0  # penalty l1·|p| on the leaves that decay, >= 0
    l2_sp: float = 0.0  # penalty ½·l2_sp·|p − pretrained|² on the leaves that have pretrained weights, >= 0
    # Rate, 0 <= rate < 1; -1 = not set: that of each dropout layer of a model of your own, 0 in other models.
    dropout: float = -1.0
    label_smoothing: float = 0.0  # share given to the uniform distribution, 0 <= share < 1
    clip_norm: float = 0.0  # global norm of the gradient, 0 = no clipping
    layer_decay: float = 1.0  # times the rate for each layer below the output, 0 < value <= 1
    momentum: float = 0.9  # of sgd, 0 <= value < 1
    beta1: float = 0.9  # of adamw and lion, 0 <= value < 1
    beta2: float = 0.999  # of adamw and lion, 0 <= value < 1
    lora_rank: int = 8  # columns of an adapter, >= 1; without effect where `trainable` holds no lora, as the next two
    lora_alpha: float = 16.0  # scale of the adapters, see lora.scaling, > 0
    lora_ratio: float = 1.0  # LoRA+: learning rate of B over that of A, > 0
    batch_size: int = 32  # examples an update
    epochs: int = 10  # passes over the training split, and the horizon of the schedule
    seed: int = 0  # head initialisation and dropout
    data_seed: int = 0  # order of the examples


@dataclass
class LoraConfig:
    # Dense layers that get adapters where `trainable` holds lora: blocks (all within blocks), attention, mlp (those
    # below a module of that name), or path patterns; several joined by "+".
    targets: str = "blocks"
    scaling: str = "alpha/rank"  # of what an adapter adds: alpha/rank, alpha/sqrt(rank) (rsLoRA)


@dataclass
class OptimizerConfig:
    name: str = "adamw"  # adamw, sgd, lion
    schedule: str = "cosine"  # constant, linear, cosine; from 1 towards 0, after a linear warm-up
    decay_coupling: str = "learning_rate"  # decay per update: learning_rate·weight_decay, or independent of the rate
    epsilon: float = 1e-8  # of adamw
    decayed: str = "matrices"  # leaves that decay: matrices (two axes or more), all
    # Factors of the learning rate, each PATTERN=FACTOR, such as ("block_*/attention=0.5", "**/bias=2"); a pattern is a
    # word or a path pattern of `trainable`, and the first that hits a leaf counts.
    multipliers: tuple[str, ...] = ()


@dataclass
class EvaluationConfig:
    batch_size: int = 128  # examples a forward pass
    # Chosen on, on the validation split: loss, or a metric of the task. Empty: accuracy, and of multilabel micro_f1, of
    # regression rmse, of tokens whose tags are O, B-TYPE and I-TYPE entity_f1.
    metric: str = ""
    # Others to report. classification: accuracy, macro_f1, matthews, auc; multilabel: accuracy (all labels right),
    # micro_f1, macro_f1, auc; regression: rmse (in units of the target), spearman; tokens:
    # accuracy (of all words), macro_f1, matthews, entity_f1 (entities found whole and of the right type).
    metrics: tuple[str, ...] = ()
    worth: float = 0.0  # the smallest difference of the metric that matters in practice, told in the answer; 0 = any
    # Training batches from which the running averages of batch normalisation are taken anew before each evaluation,
    # where it trains; 0 = the averages as training leaves them.
    batch_norm_batches: int = 0


@dataclass
class ExecutionConfig:
    mode: str = "auto"  # auto = measured, vmap, loop
    chunk: int = 0  # members a program; 0 = as many as fit
    devices: int = 0  # of this process; 0 = all
    epochs_on_device: str = "auto"  # auto = measured, scan (one call an epoch), step (one call a batch)


@dataclass
class TrunkConfig:
    # What is frozen is computed by each member (none), once a batch for all members (shared), or once for all members
    # and epochs (cached); auto = cached where it pays and fits.
    mode: str = "auto"  # auto, none, shared, cached
    dtype: str = "float32"  # of cached features: float32; bfloat16, with which auto is cached
    store: str = ""  # directory that keeps features for the next study; empty = "features" in the cache of assets
    store_gigabytes: float = 10.0  # of all features kept there, the oldest dropped first; 0 = none


@dataclass
class CheckpointConfig:
    keep: int = 3  # trials whose weights are kept, best first
    trials: tuple[str, ...] = ()  # ids of others whose weights are kept too
    interval_seconds: float = 60.0  # between saves of what is being trained; 0 = after every epoch


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    hparams: HparamsConfig = field(default_factory=HparamsConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    # What trains: all, head, last:K, first:K, bias, norm, lora, names of `parts`, or path patterns, joined by "+"; a
    # term after "!" freezes. Such as "last:2+norm", "block_5/*+head/*", "all+!embeddings". A chain such as "head>all"
    # starts each stage from the best trial of the one before, which the grid has too.
    trainable: str = "head"
    # Selections with a name, each NAME=SPEC, such as ("queries=block_*/attention/query",): words of `trainable`.
    parts: tuple[str, ...] = ()


USUAL_MAX_LENGTH = 128  # tokens of a text, where nothing declares how many
OWN_MODEL = "own"  # what model.name becomes where the user brings a model

# Settings on which no result depends, beyond rounding: a study goes on with others. What else there is counts, see
# study/problem.py.
OF_NO_RESULT = (
    "checkpoint.interval_seconds",
    "checkpoint.keep",
    "checkpoint.trials",
    "evaluation.batch_size",
    "evaluation.worth",
    "execution.chunk",
    "execution.devices",
    "execution.epochs_on_device",
    "execution.mode",
    "trunk.mode",
    "trunk.store",
    "trunk.store_gigabytes",
)

POOLINGS = ("mean", "first", "max")

# Settings with a closed list of values. Model and data names are checked where they are looked up.
CHOICES = {
    "data.task": ("classification", "multilabel", "regression", "tokens"),
    "model.dtype": ("float32", "bfloat16"),
    "model.dropout_at": ("all", "head"),
    "model.pooling": ("auto", *POOLINGS),
    "lora.scaling": ("alpha/rank", "alpha/sqrt(rank)"),
    "optimizer.name": ("adamw", "sgd", "lion"),
    "optimizer.schedule": ("constant", "linear", "cosine"),
    "optimizer.decay_coupling": ("learning_rate", "independent"),
    "optimizer.decayed": ("matrices", "all"),
    "trunk.mode": ("auto", "none", "shared", "cached"),
    "trunk.dtype": ("float32", "bfloat16"),
    "execution.mode": ("auto", "vmap", "loop"),
    "execution.epochs_on_device": ("auto", "scan", "step"),
}


# What a setting may be, by the type of its default.
_TYPES: dict[type, tuple[type | tuple[type, ...], str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "text"),
    tuple: ((tuple, list), "a tuple of texts"),
}
_LARGEST = 2**31 - 1


def fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) for every leaf setting of a config, those included that a config file made up."""
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def checked(config: object) -> Config:
    """Returns a copy of a config with numbers and texts of NumPy as Python's; raises UserError as `check` does."""
    if not isinstance(config, Config):
        raise UserError(f"config is {config!r}, allowed: a finetune.Config, as a config file's get_config() gives")
    _check_sections(config)
    found = copy.deepcopy(config)
    for section in (found, *(getattr(found, name) for name in _sections())):
        for name, value in vars(section).items():
            if isinstance(value, np.generic):  # float32 0.001 is 0.001, as in hparams.py
                plain = float(str(value)) if isinstance(value, np.floating) else value.item()
                setattr(section, name, plain)
    check(found)
    return found


def _sections() -> list[str]:
    return [name for name, value in vars(Config()).items() if dataclasses.is_dataclass(value)]


def _check_sections(config: Config) -> None:
    for name in _sections():
        wanted, found = type(getattr(Config(), name)), getattr(config, name)
        if not isinstance(found, wanted):
            raise UserError(f"{name} is {found!r}, allowed: a finetune.config.{wanted.__name__}")


def check(config: Config) -> None:
    """Raises UserError for a setting that is unknown, of another type or outside its closed list, or no valid count."""
    _check_sections(config)
    defaults = dict(fields(Config()))
    for name, value in fields(config):
        if name not in defaults:
            raise one_of("setting", name, defaults)
        types, allowed = _TYPES[type(defaults[name])]
        if not isinstance(value, types) or isinstance(value, bool):
            raise UserError(f"{name} is {value!r}, allowed: {allowed}")
        if name in CHOICES and value not in CHOICES[name]:
            raise one_of(name, value, CHOICES[name])
        if types is int and isinstance(value, int) and not 0 <= value <= _LARGEST:
            raise UserError(f"{name} is {value}, allowed: 0 to {_LARGEST}")
    if not config.data.name:
        raise UserError("data.name is empty, allowed: a packaged set, tfds:NAME, or a path")
    if config.evaluation.batch_size < 1:
        raise UserError(f"evaluation.batch_size is {config.evaluation.batch_size}, allowed: 1 or more")
    if not config.evaluation.worth >= 0:
        raise UserError(f"evaluation.worth is {config.evaluation.worth}, allowed: 0 or more")
    if not 0 <= config.trunk.store_gigabytes < math.inf:
        raise UserError(f"trunk.store_gigabytes is {config.trunk.store_gigabytes}, allowed: 0 or more, and finite")
    if config.trunk.dtype != "float32" and config.trunk.mode not in ("auto", "cached"):
        raise UserError(
            f"trunk.dtype is {config.trunk.dtype!r} and trunk.mode {config.trunk.mode!r}, which caches nothing, "
            "allowed: trunk.mode auto or cached"
        )
    if config.trunk.mode == "none" and config.execution.mode == "vmap":
        raise UserError("trunk.mode is 'none' and execution.mode 'vmap', which shares what is frozen, allowed: 'loop'")
    if not 0 <= config.checkpoint.interval_seconds < math.inf:
        raise UserError(
            f"checkpoint.interval_seconds is {config.checkpoint.interval_seconds}, allowed: 0 or more, and finite"
        )
    if not 0 < config.optimizer.epsilon < math.inf:
        raise UserError(f"optimizer.epsilon is {config.optimizer.epsilon}, allowed: above 0 and finite")
