"""A name is a module: ``("model", "resnet")`` is ``physml_jax.models.resnet``.

There is no registry. A name with a dot is an importable module of the user's own; a name that does not exist fails
at once and lists what does.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

#: kind -> (package, name of the factory that a module of this kind exports)
KINDS: dict[str, tuple[str, str]] = {
    "data": ("physml_jax.data", "make_dataset"),
    "model": ("physml_jax.models", "make_model"),
    "task": ("physml_jax.tasks", "make_task"),
    "report": ("physml_jax.reports", "make_report"),
}


def available(kind: str) -> list[str]:
    """Names of the modules of one kind that export its factory, in alphabetical order."""
    package, factory = KINDS[kind]
    names = (m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return [n for n in sorted(names) if hasattr(importlib.import_module(f"{package}.{n}"), factory)]


def module(kind: str, name: str) -> ModuleType:
    """The module that ``name`` stands for.

    Args:
      kind: one of ``KINDS``.
      name: a module of the package, or the dotted path of the user's own module.

    Raises:
      ValueError: if there is no such module, or it lacks the factory; the message lists what exists.
    """
    package, factory = KINDS[kind]
    path = name if "." in name else f"{package}.{name}"
    try:
        found = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise  # the module exists; something that it imports does not
        raise ValueError(f"{kind}.name: there is no {kind} {name!r}; available: {', '.join(available(kind))}") from None
    if not hasattr(found, factory):
        raise ValueError(f"{kind}.name: {path} has no function {factory}; available: {', '.join(available(kind))}")
    return found


def factory(kind: str, name: str) -> Callable[..., Any]:
    """The factory function of a named module."""
    return getattr(module(kind, name), KINDS[kind][1])


def check_kwargs(where: str, fn: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Holds keyword arguments of a config against a factory's signature.

    Args:
      where: the config path for the message, for example ``"model.kwargs"``.
      fn: the factory.
      kwargs: what the config passes.

    Raises:
      ValueError: for an unknown keyword; the message lists what the factory takes.
    """
    parameters = inspect.signature(fn).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters]
    unknown = sorted(set(kwargs) - set(known))
    if unknown:
        raise ValueError(
            f"{where}: unknown {', '.join(unknown)}; {fn.__module__}.{fn.__name__} takes: {', '.join(known)}"
        )
