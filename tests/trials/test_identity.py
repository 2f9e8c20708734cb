"""What tells Python values from others: code and what it reads, whatever they are called; the same in every process."""

import enum
import functools
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from finetune.errors import UserError
from finetune.trials.identity import identity

SCALE = 2.0
HELPERS = types.ModuleType("helpers")
exec("def scale(x):\n    return 3 * x\ndef other(x):\n    return x\n", vars(HELPERS))  # noqa: S102 (a module of the user's own)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return self.scale * x


def made(body, **names):
    """Returns the function f of a source text, whose globals are `names`."""
    exec(body, names)  # noqa: S102 (that differs in one place)
    return names["f"]


def closed(value):
    return lambda x: x * value


def reads_global(x):
    return x * SCALE


def reads_module(x):
    return HELPERS.scale(x)


def recursive(n):
    return 1 if n == 0 else n * recursive(n - 1)


def values():
    """Returns values that differ from each other, by name."""
    return {
        "sum": made("def f(x): return x + 1"),
        "sum of another constant": made("def f(x): return x + 2"),
        "product": made("def f(x): return x * 1"),
        "default": made("def f(x, y=1): return x + y"),
        "another default": made("def f(x, y=2): return x + y"),
        "keyword": made("def f(x, *, y=1): return x + y"),
        "inner": made("def f(x): return (lambda y: y + 1)(x)"),
        "another inner": made("def f(x): return (lambda y: y + 2)(x)"),
        "global": made("def f(x): return x + a", a=1),
        "another global": made("def f(x): return x + a", a=2),
        "function": made("def f(x): return g(x)", g=made("def f(x): return x")),
        "another function": made("def f(x): return g(x)", g=made("def f(x): return -x")),
        "method": made("def f(x): return x.sin()"),
        "another method": made("def f(x): return x.cos()"),
        "closure": closed(1.0),
        "another closure": closed(2.0),
        "array": closed(np.arange(3.0)),
        "another array": closed(np.arange(3.0) + 1),
        "array of another type": closed(np.arange(3.0, dtype=np.float32)),
        "of a device": closed(jnp.arange(4.0)),
        "keys": closed(jax.random.key(0)),
        "other keys": closed(jax.random.key(1)),
        "set": closed({"a", "b", "c", "d"}),
        "another set": closed({"a", "b", "c", "e"}),
        "mapping": closed({"a": 1}),
        "another mapping": closed({"a": 2}),
        "enumeration": closed(Colour.RED),
        "another enumeration": closed(Colour.BLUE),
        "object": Scaled(1.0),
        "another object": Scaled(2.0),
        "bound": Scaled(1.0).__call__,
        "partial": functools.partial(np.add, 1),
        "another partial": functools.partial(np.add, 2),
        "jit": closed(jax.jit(made("def f(x): return x"))),
        "another jit": closed(jax.jit(made("def f(x): return 2 * x"))),
        "cached": closed(functools.cache(made("def f(): return 1"))),
        "another cached": closed(functools.cache(made("def f(): return 2"))),
        "ufunc": np.sin,
        "another ufunc": np.cos,
        "installed": np.linalg.norm,
        "another installed": np.linalg.det,
        "global of this module": reads_global,
        "attribute of a module": reads_module,
        "recursive": recursive,
        "nothing": None,
        "number": 1,
        "another type": 1.0,
        "true": True,
    }


def test_what_differs_has_another_identity_and_what_does_not_the_same():
    found = {name: identity(value) for name, value in values().items()}
    assert len(set(found.values())) == len(found)
    assert found == {name: identity(value) for name, value in values().items()}


def test_it_follows_what_a_function_reads(monkeypatch):
    before = identity(reads_global), identity(reads_module)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 5.0)
    monkeypatch.setattr(HELPERS, "other", None)  # which is not read
    assert (identity(reads_global) != before[0], identity(reads_module) != before[1]) == (True, False)
    monkeypatch.setattr(HELPERS, "scale", lambda x: x)
    assert identity(reads_module) != before[1]


def test_names_and_places_of_code_do_not_count():
    assert identity(made("def f(x): return x + 1")) == identity(made("\n\n\ndef f(x):\n    # why\n    return x + 1"))


def test_it_is_the_same_in_another_process():
    code = (
        "import json; from tests.trials import test_identity as t;"
        "print(json.dumps({n: t.identity(v) for n, v in t.values().items()}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True,
        env=environment,
    )  # fmt: skip
    assert json.loads(done.stdout) == {name: identity(value) for name, value in values().items()}


@pytest.mark.parametrize(
    "value", [threading.Lock(), np.random.default_rng(0), iter([1])], ids=lambda value: str(type(value))
)
def test_what_cannot_be_seen_is_refused(value):
    with pytest.raises(UserError, match="which cannot be compared between processes, allowed: functions"):
        identity(closed(value))
