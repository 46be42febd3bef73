"""Imports a function by name, from a module or from a Python file."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from alignbench.core.errors import UserError


def import_function(where: str) -> Callable[..., Any]:
    """The function at "package.module:name" or "path/to/file.py:name". Raises UserError listing the functions found."""
    place, colon, name = where.rpartition(":")
    if not colon or not place or not name:
        raise UserError(f'reward.function={where!r}: expected "package.module:name" or "path/to/file.py:name"')
    module = _from_file(place, where) if place.endswith(".py") else _from_name(place, where)
    found: Any = vars(module).get(name)
    if found is None:
        raise UserError(f"reward.function={where}: no {name!r} in {place}; functions found: {_functions(module)}")
    if not callable(found) or inspect.isclass(found) or inspect.iscoroutinefunction(found):
        kind = "an async one" if inspect.iscoroutinefunction(found) else type(found).__name__
        raise UserError(f"reward.function={where}: {name!r} is not a plain function but {kind}")
    function: Callable[..., Any] = found
    return function


def _from_file(place: str, where: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"reward.function={where}: no such file: {path}")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module that defines them
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(_failure(where, error)) from error
    return module


def _from_name(place: str, where: str) -> ModuleType:
    if os.getcwd() not in sys.path:  # `python -m` adds it, the installed command does not
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise UserError(
                f"reward.function={where}: no module {error.name!r}; install it, start in its folder, "
                'or give the file as "path/to/file.py:name"'
            ) from error
        raise UserError(_failure(where, error)) from error
    except Exception as error:
        raise UserError(_failure(where, error)) from error


def _failure(where: str, error: Exception) -> str:
    return f"reward.function={where}: importing it raised {type(error).__name__}: {error}"


def _functions(module: ModuleType) -> str:
    own = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
    return ", ".join(sorted(own)) or "none"
