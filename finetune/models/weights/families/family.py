"""A family of encoders: how transformers names its settings and tensors, read in both directions."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from finetune.errors import UserError

Settings = Mapping[str, Any]  # of a config.json
SIZES = {  # as most families call them
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
}
_NORM_LEAVES = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}  # gamma, beta: older files
_TABLES = ("word", "position", "token_type", "relative")  # of embeddings: looked up, not multiplied


def _nothing(settings: Settings) -> dict[str, Any]:
    return {}


class Head(NamedTuple):
    """A class with a dense layer, an activation and a classifier on the first token.

    dense, classifier: their names. odd: whether the activation is tanh; else it is ReLU or GELU, f(x) − f(−x) = x.
    """

    dense: str
    classifier: str
    odd: bool


class Family(NamedTuple):
    """A table of names: this project's on the left, transformers' on the right; of modules the other way round.

    name: of its classes, "Bert" of BertForTokenClassification. prefix: of an encoder's tensors in a class with a head.
    sizes: settings that config.json must have. defaults: {ours: (theirs, what holds where config.json leaves it out)}.
    head: of its class for texts, and classifies_tokens: whether that for tokens has nothing but a classifier.
    pools: whether AutoModel has a pooler on top, which is left out by asking.
    constants: what always holds. fixed: settings of which one value is supported, which is also the default.
    stated: settings that must be there, with one of some values. harmless: patterns of settings that change nothing.
    derive, describe: what settings say of the architecture in other ways, and back.
    modules: outside of blocks; block: before the number of one; block_modules: inside. Several targets in place of one
        are parts of one tensor, one behind the other.
    """

    name: str
    prefix: str
    sizes: Mapping[str, str]
    modules: Mapping[str, str]
    block_modules: Mapping[str, str | tuple[str, ...]]
    head: Head | None = None
    classifies_tokens: bool = True
    pools: bool = False
    activation: str = "hidden_act"
    block: str = "encoder.layer"
    defaults: Mapping[str, tuple[str, Any]] = {}
    constants: Mapping[str, Any] = {}
    fixed: Mapping[str, Any] = {}
    stated: Mapping[str, tuple[Any, ...]] = {}
    harmless: tuple[str, ...] = ()
    derive: Callable[[Settings], dict[str, Any]] = _nothing
    derived: tuple[str, ...] = ()  # what `derive` reads
    derives: tuple[str, ...] = ()  # and what it returns
    describe: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing

    @property
    def architecture(self) -> tuple[str, ...]:
        """What an architecture says of such an encoder beside its activation."""
        return (*self.sizes, *self.defaults, *self.constants, *self.derives)

    @property
    def known(self) -> set[str]:
        """The settings of config.json that are read."""
        defaults = (theirs for theirs, _ in self.defaults.values())
        return {self.activation, *self.sizes.values(), *defaults, *self.fixed, *self.stated, *self.derived}

    def paths(self, name: str) -> tuple[str, ...]:
        """Returns the paths of this project that the tensor `name` holds; () when an encoder has no such tensor."""
        module, _, leaf = name.removeprefix(self.prefix).rpartition(".")
        number, _, inner = module.removeprefix(f"{self.block}.").partition(".")
        inside = module.startswith(f"{self.block}.") and number.isdecimal()
        found = self.block_modules.get(inner, ()) if inside else self.modules.get(module, ())
        targets = (found,) if isinstance(found, str) else found
        kinds = [_kind(target, leaf) for target in targets]
        if None in kinds:
            return ()
        within = f"block_{number}/" if inside else ""
        return tuple(f"{within}{target}/{kind}" for target, kind in zip(targets, kinds, strict=True))

    def place(self, path: str) -> tuple[str, int]:
        """Returns the tensor, without a prefix, that holds the leaf at `path`, and which part of it; KeyError: none."""
        target, _, kind = path.rpartition("/")
        leaf = "bias" if kind == "bias" else "weight"
        block, _, inner = target.partition("/")
        if block.startswith("block_"):
            module, part = _inverse(self.block_modules)[inner]
            return f"{self.block}.{block.removeprefix('block_')}.{module}.{leaf}", part
        module, part = _inverse(self.modules)[target]
        return f"{module}.{leaf}", part

    def leaves(self, tensors: Mapping[str, np.ndarray]) -> Iterable[tuple[str, str, np.ndarray]]:
        """Yields (path, name, array) of each leaf in {name: array}, kernels [in, out]; other names stay as they are."""
        for name, array in tensors.items():
            paths = self.paths(name) or (name,)
            if array.ndim and len(array) % len(paths):
                paths = (name,)
            parts = np.split(array, len(paths)) if len(paths) > 1 else [array]
            for path, part in zip(paths, parts, strict=True):
                yield path, name, part.T if path.endswith("/kernel") else part

    def tensors(self, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns {name, without a prefix: array} of {path: array}, dense weights [out, in]."""
        parts: dict[str, dict[int, np.ndarray]] = {}
        for path, leaf in leaves.items():
            name, part = self.place(path)
            parts.setdefault(name, {})[part] = leaf.T if path.endswith("/kernel") else leaf
        return {
            name: np.ascontiguousarray(np.concatenate([found[part] for part in sorted(found)]))
            for name, found in parts.items()
        }

    def module(self, layer: str) -> str:
        """Returns the name of the dense layer at `layer`; raises UserError where it has none of its own."""
        try:
            name, _ = self.place(f"{layer}/kernel")
        except KeyError:
            raise UserError(f"layer {layer!r} has no name in transformers, allowed: those of the encoder") from None
        if len(self.paths(name)) > 1:
            raise UserError(f"layer {layer!r} is a part of {name!r} in transformers, allowed: layers of their own")
        return name.removesuffix(".weight")


def _inverse(modules: Mapping[str, str | tuple[str, ...]]) -> dict[str, tuple[str, int]]:
    """Returns {this project's path: (transformers' name, which part of it)}."""
    return {
        target: (name, part)
        for name, found in modules.items()
        for part, target in enumerate((found,) if isinstance(found, str) else found)
    }


def _kind(target: str, leaf: str) -> str | None:
    """Returns what this project calls a tensor's `leaf` in the layer `target`; None: such layers have no such leaf."""
    if target.endswith("norm"):
        return _NORM_LEAVES.get(leaf)
    if target.rpartition("/")[2] in _TABLES:
        return {"weight": "embedding"}.get(leaf)
    return {"weight": "kernel", "bias": "bias"}.get(leaf)
