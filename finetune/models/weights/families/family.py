"""A family of encoders: how transformers names its settings and tensors, read in both directions."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from finetune.errors import UserError

Settings = Mapping[str, Any]  # of a config.json
Leaves = dict[str, np.ndarray]  # by this project's path
SIZES = {  # as most families call them
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
}
_NORM_LEAVES = {"weight": "scale", "gamma": "scale", "bias": "bias", "beta": "bias"}  # gamma, beta: older files
_NORM_LEAVES |= {"running_mean": "mean", "running_var": "variance"}
# All others are a weight.
_LEAVES = {"bias": "bias", "mean": "running_mean", "variance": "running_var", "steps": "num_batches_tracked"}
_TABLES = ("word", "position", "token_type", "relative")  # of embeddings: looked up, not multiplied
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
_FUSED = (".in_proj_", ".in_proj.")  # as PyTorch's MultiheadAttention calls its weight, and as a layer would
# Axes of length 1 that transformers puts before an array.
_BEFORE = {"cls_token": 2, "distillation_token": 2, "probe": 2}
_BEFORE |= {"register_tokens": 1, "position_embeddings": 1, "mask_token": 1}


def _nothing(*told: Any) -> dict[str, Any]:
    return {}


def _as_they_are(leaves: Leaves, told: Mapping[str, Any]) -> Leaves:
    return leaves


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
    activations: what `activation` may be; where config.json leaves it out it is `activation_left_out`, and where an
        architecture does, `usual_activation`.
    derive, describe: what settings say of the architecture in other ways, and back: (architecture, leaves) -> settings.
    modules: outside of blocks; block: before the number of one; block_modules: inside. Several targets in place of one
        are parts of one tensor, one behind the other. arrays, block_arrays: tensors that are leaves, not of a layer.
    stage: before the number of a block in a stage, which is then what `block` is before; stage_modules: what the first
        block of one has besides.
    read, write: leaves from how transformers lays them out, (leaves, settings), and back, (leaves, architecture).
    inside: the settings of a file that also describes a tower of texts in which those of the family are; left_out:
        patterns of tensors of such files, and of what is behind the encoder.

    poolings: which it may have; of images the first is what its own head reads, see `classifier`.
    optional: what an architecture may leave out. images: whether it reads them, and not texts; image_head: the layer
        of its class for them; "" = it has none that computes what ours does; image_head_reads_mean: see `classifier`.
        resizing: of position embeddings, see `position_grid`.
    """

    name: str
    prefix: str
    sizes: Mapping[str, str]
    modules: Mapping[str, str | tuple[str, ...]]
    block_modules: Mapping[str, str | tuple[str, ...]]
    head: Head | None = None
    classifies_tokens: bool = True
    pools: bool = False
    activation: str = "hidden_act"
    activations: tuple[str, ...] = ACTIVATIONS
    activation_left_out: str = ACTIVATIONS[0]
    usual_activation: str = ACTIVATIONS[0]
    block: str = "encoder.layer"
    stage: str = ""
    stage_modules: Mapping[str, str] = {}
    arrays: Mapping[str, str] = {}
    block_arrays: Mapping[str, str] = {}
    defaults: Mapping[str, tuple[str, Any]] = {}
    constants: Mapping[str, Any] = {}
    fixed: Mapping[str, Any] = {}
    stated: Mapping[str, tuple[Any, ...]] = {}
    harmless: tuple[str, ...] = ()
    derive: Callable[[Settings], dict[str, Any]] = _nothing
    derived: tuple[str, ...] = ()  # what `derive` reads
    derives: tuple[str, ...] = ()  # and what it returns
    describe: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], dict[str, Any]] = _nothing
    read: Callable[[Leaves, Settings], Leaves] = _as_they_are
    write: Callable[[Leaves, Mapping[str, Any]], Leaves] = _as_they_are
    inside: str = ""
    left_out: tuple[str, ...] = ()
    poolings: tuple[str, ...] = ("mean", "first", "max")
    optional: tuple[str, ...] = ("activation",)
    images: bool = False
    image_head: str = ""
    image_head_reads_mean: bool = False
    resizing: str = "cubic"

    @property
    def architecture(self) -> tuple[str, ...]:
        """What an architecture says of such an encoder beside its activation."""
        return (*self.sizes, *self.defaults, *self.constants, *self.derives)

    @property
    def has_positions(self) -> bool:
        """Whether images are parted into patches with position embeddings."""
        return self.images and not self.stage

    @property
    def known(self) -> set[str]:
        """The settings of config.json that are read."""
        defaults = (theirs for theirs, _ in self.defaults.values())
        return {self.activation, *self.sizes.values(), *defaults, *self.fixed, *self.stated, *self.derived}

    def paths(self, name: str) -> tuple[str, ...]:
        """Returns the paths of this project that the tensor `name` holds; () when an encoder has no such tensor."""
        name = name.removeprefix(self.prefix)
        number, inner = self._within(name)
        modules, arrays = (self._inside, self.block_arrays) if number else (self.modules, self.arrays)
        within, name = (f"block_{number}/", inner) if number else ("", name)
        if name in arrays:
            return (f"{within}{arrays[name]}",)
        module, _, leaf = name.replace(*_FUSED).rpartition(".")
        found = modules.get(module, ())
        targets = (found,) if isinstance(found, str) else found
        kinds = [_kind(target, leaf) for target in targets]
        if None in kinds:
            return ()
        return tuple(f"{within}{target}/{kind}" for target, kind in zip(targets, kinds, strict=True))

    @property
    def _inside(self) -> Mapping[str, str | tuple[str, ...]]:
        return {**self.block_modules, **self.stage_modules}

    def _within(self, name: str) -> tuple[str, str]:
        """Returns the number of the block that a tensor is in, "" = in none, and its name inside."""
        number, _, inner = name.removeprefix(f"{self.block}.").partition(".")
        if not name.startswith(f"{self.block}.") or not number.isdecimal():
            return "", name
        if not self.stage:
            return number, inner
        if inner.rpartition(".")[0] in self.stage_modules:
            return f"{number}_0", inner
        layer, _, deeper = inner.removeprefix(f"{self.stage}.").partition(".")
        return f"{number}_{layer}", deeper

    def _before(self, number: str, module: str) -> str:
        """Returns what stands before a module in the block of a number."""
        if not self.stage or module in self.stage_modules:
            return f"{self.block}.{number.partition('_')[0]}."
        return f"{self.block}.{number.replace('_', f'.{self.stage}.')}."

    def place(self, path: str) -> tuple[str, int]:
        """Returns the tensor, without a prefix, that holds the leaf at `path`, and which part of it; KeyError: none."""
        block, _, inner = path.partition("/")
        inside = block.startswith("block_")
        modules, arrays = (self._inside, self.block_arrays) if inside else (self.modules, self.arrays)
        number, path = (block.removeprefix("block_"), inner) if inside else ("", path)
        target, _, kind = path.rpartition("/")
        if path in arrays.values():
            module, name, part = "", next(name for name, target in arrays.items() if target == path), 0
        else:
            module, part = _inverse(modules)[target]
            name = f"{module}.{_LEAVES.get(kind, 'weight')}".replace(_FUSED[1], _FUSED[0])
        return f"{self._before(number, module) if inside else ''}{name}", part

    def leaves(self, tensors: Mapping[str, np.ndarray]) -> Iterable[tuple[str, str, np.ndarray]]:
        """Yields (path, name, array) of each leaf in {name: array}, kernels [in, out]; other names stay as they are."""
        for name, array in tensors.items():
            paths = self.paths(name) or (name,)
            if array.ndim and len(array) % len(paths):
                paths = (name,)
            parts = np.split(array, len(paths)) if len(paths) > 1 else [array]
            for path, part in zip(paths, parts, strict=True):
                before = (1,) * _BEFORE.get(name.rpartition(".")[2], 0)
                if before and part.shape[: len(before)] == before:
                    part = part.reshape(part.shape[len(before) :])
                yield path, name, _inputs_first(part) if path.endswith("/kernel") else part

    def tensors(self, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns {name, without a prefix: array} of {path: array}, dense weights [out, in]."""
        parts: dict[str, dict[int, np.ndarray]] = {}
        for path, leaf in leaves.items():
            name, part = self.place(path)
            before = (1,) * _BEFORE.get(name.rpartition(".")[2], 0)
            turned = _outputs_first(leaf) if path.endswith("/kernel") else leaf
            parts.setdefault(name, {})[part] = turned.reshape((*before, *turned.shape))
        joined = {name: [found[part] for part in sorted(found)] for name, found in parts.items()}
        return {
            name: np.array(np.concatenate(each) if len(each) > 1 else each[0], order="C")
            for name, each in joined.items()
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


def _inputs_first(weight: np.ndarray) -> np.ndarray:
    """Returns a dense weight [out, in] as [in, out], that of a convolution [out, in, H, W] as [H, W, in, out]."""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T


def _outputs_first(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


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
