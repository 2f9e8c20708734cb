"""Identity: what tells a Python value from others, the same in every process that runs the same code.

A program holds Python where it calls back to it. A function is told by its code, and by the values that it reads from
closures, defaults and globals, and so on through what these hold. What comes with Python or an installed package is
told by its name and version.
"""

import dataclasses
import enum
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from finetune.errors import UserError

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
_WRITTEN_IN_PYTHON = 1 << 9  # of type.__flags__: Py_TPFLAGS_HEAPTYPE
# Of a class: what is not its content.
_OF_A_CLASS = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__",
               "__annotations__", "__annotate_func__", "__annotations_cache__", "_abc_impl"}  # fmt: skip
_WRAPPERS: tuple[Any, ...] = (type(jax.jit(repr)), type(functools.cache(repr)))
_INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib", "platstdlib")}


def identity(value: Any) -> str:
    """Returns a hash (hex) of a value; raises UserError for one that cannot be compared between processes."""
    return _Reader().read(value)


def array_text(value: Any) -> str:
    """Returns what tells an array, or random keys, from others."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        return f"{value.dtype} {array_text(jax.random.key_data(value))}"
    array = np.asarray(value)
    if array.dtype.hasobject:
        return identity(array.tolist())
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


class _Reader:
    """Goes through a value and what it holds; what holds itself is told by how far up it is."""

    def __init__(self) -> None:
        self._open: list[int] = []  # ids of values that are being read
        self._read: dict[int, tuple[str, Any]] = {}  # with the values, so that no id is used again

    def read(self, value: Any) -> str:
        if type(value) in _PLAIN or isinstance(value, np.dtype):
            return f"{type(value).__name__} {value!r}"
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return array_text(value)
        if id(value) in self._open:
            return f"again {len(self._open) - self._open.index(id(value))}"
        if id(value) not in self._read:
            self._open.append(id(value))
            digest = hashlib.sha256("\n".join(self._parts(value)).encode()).hexdigest()
            self._open.pop()
            self._read[id(value)] = digest, value
        return self._read[id(value)][0]

    def _parts(self, value: Any) -> Iterator[str]:
        yield type(value).__qualname__
        if name := _name(value):
            yield name
        elif isinstance(value, types.FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, types.CodeType):
            yield from map(self.read, _of_code(value))
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
            owner = getattr(value, "__self__", None)
            yield value.__name__
            yield "" if owner is None or isinstance(owner, types.ModuleType) else self.read(owner)
        elif isinstance(value, dict | types.MappingProxyType):
            yield from (self.read(part) for item in value.items() for part in item)
        elif isinstance(value, set | frozenset):
            yield from sorted(map(self.read, value))
        elif isinstance(value, tuple | list):
            yield from map(self.read, value)
        elif isinstance(value, type):
            yield from map(self.read, (value.__qualname__, value.__bases__, *_of_class(value)))
        elif isinstance(value, types.ModuleType):
            yield from map(self.read, (value.__name__, Path(value.__file__).read_bytes() if value.__file__ else None))
        else:
            yield from map(self.read, _of_object(value))

    def _of_function(self, function: types.FunctionType) -> Iterator[str]:
        cells = list(map(_content, function.__closure__ or ()))
        yield from map(self.read, (function.__code__, function.__defaults__, function.__kwdefaults__, cells))
        names = sorted(_names(function.__code__))
        for name in names:
            if name in function.__globals__:
                yield from self._of_global(name, function.__globals__[name], names)

    def _of_global(self, name: str, value: Any, names: list[str]) -> Iterator[str]:
        """Yields what a function reads by a global name: of a module of the user's own, the attributes in `names`."""
        yield name
        if isinstance(value, types.ModuleType) and not _name(value):
            for each in names:
                if each in vars(value):
                    yield f"{each} {self.read(vars(value)[each])}"
        else:
            yield self.read(value)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _of_code(code: types.CodeType) -> Iterator[Any]:
    """Yields what a code object computes by; not where it is written."""
    yield from (code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    yield code.co_exceptiontable


def _names(code: types.CodeType) -> set[str]:
    """Returns the names of globals and attributes that code reads, that of functions inside it too."""
    inner = (_names(each) for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*inner)


def _of_class(value: type) -> Iterator[Any]:
    for name, attribute in sorted(vars(value).items()):
        if name not in _OF_A_CLASS and not inspect.isgetsetdescriptor(attribute):
            yield name
            # The descriptor of a slot is told by its name.
            yield None if inspect.ismemberdescriptor(attribute) else attribute


def _of_object(value: Any) -> Iterator[Any]:
    """Yields what an object is made of; raises UserError where that cannot be seen."""
    if isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, jax.tree_util.PyTreeDef | range | slice | types.GenericAlias):
        yield repr(value)
    elif isinstance(value, _WRAPPERS):
        yield value.__wrapped__
    elif isinstance(value, enum.Enum):
        yield from (type(value), value.name)
    else:
        yield type(value)
        yield _state(value)


def _state(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object of a class that is written in Python."""
    kinds = [kind for kind in type(value).__mro__ if kind is not object]
    slots = [name for kind in kinds for name in np.atleast_1d(vars(kind).get("__slots__", ())).tolist()]
    fields = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    if not all(kind.__flags__ & _WRITTEN_IN_PYTHON for kind in kinds) or not (hasattr(value, "__dict__") or slots):
        raise UserError(
            f"the model calls Python that holds {value!r:.60}, which cannot be compared between processes, allowed: "
            "functions, numbers, texts, arrays, and objects of classes in Python; a cached function may make it"
        )
    names = dict.fromkeys((*getattr(value, "__dict__", ()), *slots, *fields))
    return {name: getattr(value, name) for name in names if name != "__weakref__" and hasattr(value, name)}


def _name(value: Any) -> str:
    """Returns name and version of a module, a class or a function of Python or an installed package, else ""."""
    if isinstance(value, types.ModuleType):
        return _installed(value)
    module, path = sys.modules.get(str(getattr(value, "__module__", ""))), getattr(value, "__qualname__", "")
    found: Any = module
    for part in str(path).split("."):
        found = getattr(found, part, None)
    return f"{_installed(module)} {path}" if module and found is value and _installed(module) else ""


def _installed(module: types.ModuleType) -> str:
    """Returns name and version of a module that comes with Python or an installed package, else ""."""
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    file = getattr(module, "__file__", None)
    if top.__name__ in sys.stdlib_module_names:
        return f"{module.__name__} {sys.version_info.major}.{sys.version_info.minor}"
    if file is None or _INSTALLED.isdisjoint(Path(file).resolve().parents):
        return ""
    return f"{module.__name__} {getattr(top, '__version__', '')}"
