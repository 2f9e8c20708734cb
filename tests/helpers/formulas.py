"""The mathematics of the core again, in NumPy and float64, written by hand: what tests expect comes from here."""

import numpy as np

Leaves = dict[str, np.ndarray]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns log probabilities [B, C]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def targets(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Returns the smoothed one-hot targets [B, C]."""
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


def mlp_loss_and_gradients(p: Leaves, x: np.ndarray, labels: np.ndarray, smoothing: float) -> tuple[float, Leaves]:
    """Returns the mean loss of the tanh MLP stem, block_0, head, and its gradient by back-propagation."""
    first = np.tanh(x @ p["stem/kernel"] + p["stem/bias"])
    second = np.tanh(first @ p["block_0/kernel"] + p["block_0/bias"])
    log_p = log_softmax(second @ p["head/kernel"] + p["head/bias"])
    wanted = targets(labels, log_p.shape[1], smoothing)
    at_head = (np.exp(log_p) - wanted) / len(x)
    at_block = at_head @ p["head/kernel"].T * (1 - second**2)
    at_stem = at_block @ p["block_0/kernel"].T * (1 - first**2)
    layers = {"stem": (x, at_stem), "block_0": (first, at_block), "head": (second, at_head)}
    gradients = {}
    for name, (inputs, errors) in layers.items():
        gradients |= {f"{name}/kernel": inputs.T @ errors, f"{name}/bias": errors.sum(axis=0)}
    return -(wanted * log_p).sum(axis=1).mean(), gradients


def cosine(update: int, total: int, warmup_fraction: float) -> float:
    """Returns the unit cosine schedule with linear warm-up."""
    warmup = warmup_fraction * total
    if update < warmup and warmup > 1:
        return (update + 1) / warmup if update + 1 < warmup else 1.0
    return 0.5 * (1 + np.cos(np.pi * max(update - warmup, 0) / max(total - warmup, 1)))


def penalty_gradients(p: Leaves, pretrained: Leaves, decayed: set[str], h: dict[str, float]) -> Leaves:
    """Returns the gradient of l1·|p| + ½·l2·p² over `decayed` and ½·l2_sp·(p − p₀)² over `pretrained`."""
    gradients = {path: np.zeros_like(leaf) for path, leaf in p.items()}
    for path in decayed & p.keys():
        gradients[path] += h["l1"] * np.sign(p[path]) + h["l2"] * p[path]
    for path in pretrained.keys() & p.keys():
        gradients[path] += h["l2_sp"] * (p[path] - pretrained[path])
    return gradients


class Optimizer:
    """adamw, sgd or lion over {path: array}, as their papers write them."""

    def __init__(self, name: str, h: dict[str, float], decayed: set[str], coupling: str = "learning_rate"):
        self.name, self.h, self.decayed, self.coupling = name, h, decayed, coupling
        self.first: Leaves = {}
        self.second: Leaves = {}
        self.steps = 0

    def update(self, p: Leaves, gradients: Leaves, scale: float) -> Leaves:
        """Returns the parameters after one update."""
        self.steps += 1
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        clip = self.h["clip_norm"]
        if clip > 0 and norm > clip:
            gradients = {path: g * clip / norm for path, g in gradients.items()}
        rate, decay = scale * self.h["learning_rate"], self.h["weight_decay"]
        after = {}
        for path, leaf in p.items():
            after[path] = leaf - rate * self._direction(path, gradients[path])
            if path in self.decayed:
                after[path] -= (rate if self.coupling == "learning_rate" else scale) * decay * leaf
        return after

    def _direction(self, path: str, g: np.ndarray) -> np.ndarray:
        m, v = self.first.get(path, 0 * g), self.second.get(path, 0 * g)
        b1, b2 = self.h["beta1"], self.h["beta2"]
        if self.name == "sgd":
            self.first[path] = self.h["momentum"] * m + g
            return self.first[path]
        if self.name == "lion":
            self.first[path] = b2 * m + (1 - b2) * g
            return np.sign(b1 * m + (1 - b1) * g)
        self.first[path] = m = b1 * m + (1 - b1) * g
        self.second[path] = v = b2 * v + (1 - b2) * g**2
        return m / (1 - b1**self.steps) / (np.sqrt(v / (1 - b2**self.steps)) + 1e-8)
