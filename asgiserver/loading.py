"""From ``module:attribute`` on the command line to an ASGI 3 application.

A user's slip (a wrong name, a file's path, a class for an instance) is a :class:`SettingsError` on one line that says
what to write instead. An exception that the application's own code raises during the import passes through untouched,
because only its own traceback helps.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .asgi.interfaces import Application
from .errors import SettingsError
from .settings import Settings

__all__ = ["as_asgi3", "load_application"]

# The same choice as asgiref's, without importing asgiref: the test must know the mark that asgiref puts on functions.
if hasattr(inspect, "markcoroutinefunction"):
    _iscoroutinefunction: Callable[[Any], bool] = inspect.iscoroutinefunction
else:
    _iscoroutinefunction = asyncio.iscoroutinefunction

#: The attributes that are tried, in this order, when only a module is named.
USUAL_NAMES = ("application", "app")


def load_application(path: str, settings: Settings) -> Application:
    """Import what ``path`` names and give it as an ASGI 3 application.

    :param path: ``package.module:attribute.path``; a module alone means its ``application``, else its ``app``.
    :param settings: ``app_dir`` is put first on ``sys.path`` and stays there; with ``factory`` the imported object is
        called to get the application; ``interface`` says of which kind that is.
    :raises SettingsError: when the module or the attribute is missing, or the object cannot be an application.
    :raises Exception: any exception that the module, or the factory, raises itself.
    """
    name, attribute = _split(path)
    _put_first_on_path(settings.app_dir)
    module = _import(name, settings.app_dir)
    if not attribute:
        attribute = _usual_name(module)
    found = _attribute(module, attribute)
    return as_asgi3(_made_by(found, path) if settings.factory else found, settings.interface)


def as_asgi3(application: Any, interface: str = "auto") -> Application:
    """Wrap ``application``, if need be, so that it can be called with ``scope, receive, send``.

    An application that this function has wrapped before comes back unchanged, whatever ``interface`` says, so that the
    command line and ``Server`` can both call it.

    :param interface: ``"auto"`` tells ASGI 2 from ASGI 3 by the signature; ``"asgi3"``, ``"asgi2"`` and ``"wsgi"``
        believe the caller.
    :raises SettingsError: for an object that is no application, and in ``auto`` for a WSGI application.
    """
    if not callable(application):
        raise SettingsError(f"{_described(application)} cannot be called, so it is not an application")
    single: Application = application
    # This and _asgi_double_callable are asgiref's hints: asgiref.compatibility.is_double_callable looks at them first.
    if getattr(application, "_asgi_single_callable", False):
        return single
    if interface == "auto":
        interface = _interface_of(application)
    if interface == "asgi3":
        return single
    return _wrapped(application, interface)


def _wrapped(application: Any, interface: str) -> Application:
    wrapped: Any
    if interface == "wsgi":
        from .wsgi import WSGI

        wrapped = WSGI(application)
    else:
        from asgiref.compatibility import double_to_single_callable

        wrapped = double_to_single_callable(application)
        wrapped._asgi_single_callable = True
    single: Application = wrapped
    return single


def _split(path: str) -> tuple[str, str]:
    """The module and the attribute path of ``path``; the latter is empty when there is no colon."""
    name, colon, attribute = path.partition(":")
    if "/" in name or os.sep in name or name.endswith(".py"):
        dotted = name.removesuffix(".py").removeprefix("./").replace(os.sep, ".").replace("/", ".").strip(".")
        raise SettingsError(f"{name!r} is a file's path; write the module with dots: '{dotted}{colon}{attribute}'")
    complete = all(name.split(".")) and (not colon or all(attribute.split(".")))
    if not complete or ":" in attribute:
        raise SettingsError(f"expected MODULE:ATTRIBUTE, like 'mysite.asgi:application', got {path!r}")
    return name, attribute


def _put_first_on_path(folder: str) -> None:
    absolute = os.path.abspath(folder)
    if not os.path.isdir(absolute):
        raise SettingsError(f"app_dir: there is no folder {folder!r}")
    if sys.path[:1] != [absolute]:
        sys.path.insert(0, absolute)
    # Otherwise a module that was written after the interpreter listed the folder would not be found. For this folder
    # alone: importlib.invalidate_caches() of newer Pythons imports importlib.metadata, with email and zipfile.
    sys.path_importer_cache.pop(absolute, None)


def _import(name: str, app_dir: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The missing module is the named one, or a package on the way to it; any other is the application's own error.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        missing = f"no module named {error.name!r}" + ("" if error.name == name else f", needed for {name!r}")
    parent, _, last = name.rpartition(".")
    if hasattr(sys.modules.get(parent), last):
        raise SettingsError(f"{name!r} is no module; did you mean '{parent}:{last}'?")
    where = os.path.abspath(app_dir)
    raise SettingsError(f"{missing}, neither in {where} nor where Python looks; is --app-dir right?")


def _usual_name(module: ModuleType) -> str:
    for name in USUAL_NAMES:
        if hasattr(module, name):
            return name
    raise SettingsError(
        f"module {module.__name__!r} has neither 'application' nor 'app'; "
        f"write '{module.__name__}:NAME'{_offered(module, '')}"
    )


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    reached = f"module {module.__name__!r}"
    for name in path.split("."):
        if not hasattr(found, name):
            raise SettingsError(f"{reached} has no attribute {name!r}{_offered(found, name)}")
        found = getattr(found, name)
        reached = f"{name!r} in {reached}"
    return found


def _offered(holder: object, wanted: str) -> str:
    """The end of a message: names in ``holder`` that the user may have meant."""
    members = getattr(holder, "__dict__", {})
    own = [name for name, value in members.items() if not name.startswith("_") and _is_own(holder, value)]
    import difflib

    likely = [name for name in USUAL_NAMES if name in own]
    names = likely or difflib.get_close_matches(wanted, own) or own[:5]
    return f"; it has {', '.join(map(repr, names))}" if names else ""


def _is_own(holder: object, value: object) -> bool:
    """Whether ``value`` can be called and was not merely imported into the module ``holder``."""
    imported = inspect.isclass(value) or inspect.isfunction(value)
    own = not imported or getattr(value, "__module__", None) == getattr(holder, "__name__", None)
    return callable(value) and own


def _made_by(factory: Any, path: str) -> Any:
    if not callable(factory):
        raise SettingsError(f"--factory: {_described(factory)} cannot be called")
    if _is_async(factory):
        raise SettingsError(f"--factory: {path!r} is a coroutine function; a factory returns the application at once")
    if not _takes(factory, 0):
        raise SettingsError(f"--factory: {path!r} cannot be called without arguments")
    return factory()


def _interface_of(application: Callable[..., Any]) -> str:
    """``"asgi3"`` or ``"asgi2"``, told by hints, by ``async def``, and by how many arguments are required."""
    if getattr(application, "_asgi_double_callable", False):
        return "asgi2"
    if inspect.isclass(application):
        return _interface_of_class(application)
    if _is_async(application):
        if not _takes(application, 3):
            raise _not_an_application(application)
        return "asgi3"
    return _interface_of_signature(application)


def _interface_of_class(application: type) -> str:
    if hasattr(application, "__await__") and _takes(application, 3):
        return "asgi3"
    call = inspect.getattr_static(application, "__call__", None)
    # ASGI 2: the class takes the scope, its instance ``receive, send``; with ``self`` these are three.
    if _takes(application, 1) and call is not None and _takes(call, 3):
        return "asgi2"
    name = application.__name__
    instance = f"{name}.as_asgi()" if hasattr(application, "as_asgi") else f"{name}()"
    raise SettingsError(f"{name!r} is a class; name an application made of it, such as {instance}, or use --factory")


def _interface_of_signature(application: Callable[..., Any]) -> str:
    """For a callable that is not ``async def``: a function that returns an awaitable, or an old style application."""
    try:
        parameters = inspect.signature(application).parameters.values()
    except (TypeError, ValueError):
        return "asgi3"  # Written in C, without a signature to tell by; new applications are written for ASGI 3.
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = sum(each.default is each.empty for each in positional)
    variadic = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    two = len(positional) == required == 2 and not variadic
    if two or any(each.name == "start_response" for each in positional):
        raise SettingsError(
            f"{_described(application)} looks like a WSGI application; use --interface wsgi "
            "or wrap it with asgiserver.wsgi.WSGI"
        )
    if required == 1 and not variadic:
        return "asgi2"
    if required == 3 or (variadic and required < 3):
        return "asgi3"
    raise _not_an_application(application)


def _not_an_application(application: Callable[..., Any]) -> SettingsError:
    hint = "; if it makes the application, use --factory" if _takes(application, 0) else ""
    return SettingsError(f"{_described(application)} does not take the three arguments scope, receive and send{hint}")


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return False
    return bool(_iscoroutinefunction(function) or _iscoroutinefunction(type(function).__call__))


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether ``function`` can be called with ``count`` positional arguments; True when that cannot be known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _described(value: object) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    kind = type(value).__qualname__
    return f"{name!r} ({kind})" if isinstance(name, str) else f"an object of type {kind!r}"
