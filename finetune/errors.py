"""The one error a user can cause: a line that says what, the value, and what is allowed."""

import difflib
from collections.abc import Iterable

_LISTED, _NEAREST = 40, 5  # names that still fit on a line; of more names
# What others call what is allowed here.
_ALIASES = {
    "alpha": "lora_alpha",
    "batch": "batch_size",
    "bs": "batch_size",
    "clip": "clip_norm",
    "dropout_rate": "dropout",
    "epoch": "epochs",
    "grad_clip": "clip_norm",
    "gradient_clip": "clip_norm",
    "gradient_clipping": "clip_norm",
    "label_smoothing_factor": "label_smoothing",
    "llrd": "layer_decay",
    "lr": "learning_rate",
    "lr_schedule": "schedule",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip_norm",
    "max_len": "max_length",
    "max_seq_length": "max_length",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "optim": "optimizer.name",
    "optimizer": "optimizer.name",
    "per_device_train_batch_size": "batch_size",
    "r": "lora_rank",
    "rank": "lora_rank",
    "rate": "learning_rate",
    "scheduler": "schedule",
    "smoothing": "label_smoothing",
    "step_size": "learning_rate",
    "train_batch_size": "batch_size",
    "warmup": "warmup_fraction",
    "warmup_ratio": "warmup_fraction",
    "wd": "weight_decay",
}


class UserError(ValueError):
    """Input that the user can mend; the command line prints it as one line and exits with status 2."""


class OutOfMemory(UserError):
    """Not even one member fits into memory."""


def one_of(what: str, value: object, allowed: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among `allowed`: these, or the nearest of many, and the one meant."""
    names = sorted(allowed)
    near = _meant(str(value), names) or difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(names) > _LISTED:
        shown = difflib.get_close_matches(near[0] if near else str(value), names, n=_NEAREST, cutoff=0.0)
        names = [*shown, f"and {len(names) - len(shown)} more"]
    return UserError(f"{what} is {value!r}, allowed: {', '.join(names)}{hint}")


def _meant(value: str, names: list[str]) -> list[str]:
    """Returns those of `names`, dotted ones too, for which `value` is what others call them."""
    alias = _ALIASES.get(value.rpartition(".")[2].lower().replace("-", "_"), "")
    return [name for name in names if alias and (name == alias or name.endswith(f".{alias}"))]
