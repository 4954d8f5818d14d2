from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from channels.generic.websocket import WebsocketConsumer
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint

from asgiserver.errors import SettingsError
from asgiserver.loading import as_asgi3, load_application
from asgiserver.settings import Settings
from asgiserver.wsgi import WSGI


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    await send({"scope": scope, "received": await receive()})


class Instance:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi3(scope, receive, send)

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi3(scope, receive, send)

    @staticmethod
    def returning_an_awaitable(scope: Any, receive: Any, send: Any) -> Any:
        return asgi3(scope, receive, send)


class Awaitable:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.arguments = scope, receive, send

    def __await__(self) -> Any:
        return asgi3(*self.arguments).__await__()


def decorated(*args: Any, **keywords: Any) -> Any:
    return asgi3(*args, **keywords)


@functools.wraps(asgi3)
def wrapping(*args: Any) -> Any:
    return asgi3(*args)


def asgi2(scope: Any) -> Any:
    async def instance(receive: Any, send: Any) -> None:
        await asgi3(scope, receive, send)

    return instance


class DoubleCallable:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await asgi3(self.scope, receive, send)


class ConfiguredDoubleCallable(DoubleCallable):
    def __init__(self, prefix: str, scope: Any) -> None:
        super().__init__(scope)


class DoubleCallableInstance:
    def __call__(self, scope: Any, setting: int = 1) -> Any:
        return asgi2(scope)


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"from WSGI"]


def named(value: object) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__)


def call(application: Any) -> list[Any]:
    """What ``application`` sends when it is called as a server calls it."""
    sent: list[Any] = []

    async def receive() -> str:
        return "an event"

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        await application({"type": "test"}, receive, send)

    asyncio.run(run())
    return sent


ASGI3 = [
    asgi3, Instance(), Instance().method, Instance.returning_an_awaitable, functools.partial(Instance()),
    functools.partial(asgi3), Awaitable, decorated, wrapping,
]  # fmt: skip
ASGI2 = [
    asgi2,
    DoubleCallable,
    functools.partial(ConfiguredDoubleCallable, "/prefix"),
    DoubleCallableInstance(),
]


class TestTellingTheInterface:
    @pytest.mark.parametrize("application", ASGI3, ids=named)
    def test_an_asgi_3_application_is_given_back_as_it_is(self, application: Any) -> None:
        assert as_asgi3(application) is application
        assert call(application) == [{"scope": {"type": "test"}, "received": "an event"}]

    @pytest.mark.parametrize("application", ASGI2, ids=named)
    def test_an_asgi_2_application_is_wrapped(self, application: Any) -> None:
        assert as_asgi3(application) is not application
        assert call(as_asgi3(application)) == [{"scope": {"type": "test"}, "received": "an event"}]

    @pytest.mark.parametrize(
        "application",
        [ASGIHandler.__new__(ASGIHandler), Starlette(), WebsocketConsumer.as_asgi(), HTTPEndpoint],
        ids=named,
    )
    def test_the_applications_of_frameworks_are_asgi_3(self, application: Any) -> None:
        assert as_asgi3(application) is application

    @pytest.mark.parametrize(
        "application", [wsgi, functools.partial(wsgi), WSGIHandler.__new__(WSGIHandler)], ids=named
    )
    def test_a_wsgi_application_is_refused_with_both_cures(self, application: Any) -> None:
        with pytest.raises(SettingsError, match=r"use --interface wsgi or wrap it with asgiserver\.wsgi\.WSGI$"):
            as_asgi3(application)

    def test_wsgi_is_known_by_its_second_argument_even_with_more_behind_it(self) -> None:
        def application(environ: Any, start_response: Any, more: Any = None) -> None: ...

        with pytest.raises(SettingsError, match="WSGI"):
            as_asgi3(application)

    def test_the_hint_of_asgiref_goes_before_the_signature(self) -> None:
        def varied(*args: Any) -> Any:
            return asgi2(*args)

        varied._asgi_double_callable = True  # type: ignore[attr-defined]
        assert call(as_asgi3(varied)) == [{"scope": {"type": "test"}, "received": "an event"}]

    def test_a_callable_without_a_signature_is_taken_for_asgi_3(self) -> None:
        class Unknown:
            __signature__ = "unreadable"

            def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...

        application = Unknown()
        assert as_asgi3(application) is application


class TestForcingTheInterface:
    def test_asgi3_believes_the_caller(self) -> None:
        assert as_asgi3(asgi2, "asgi3") is asgi2

    def test_asgi2_calls_twice_whatever_the_signature_says(self) -> None:
        def varied(*args: Any) -> Any:
            return asgi2(*args)

        assert call(as_asgi3(varied, "asgi2")) == [{"scope": {"type": "test"}, "received": "an event"}]

    def test_wsgi_is_wrapped(self) -> None:
        wrapped: Any = as_asgi3(wsgi, "wsgi")
        assert isinstance(wrapped, WSGI)
        assert wrapped.application is wsgi

    @pytest.mark.parametrize(("application", "interface"), [(wsgi, "wsgi"), (asgi2, "asgi2"), (asgi2, "auto")])
    def test_wrapping_twice_is_wrapping_once(self, application: Any, interface: str) -> None:
        once = as_asgi3(application, interface)
        assert as_asgi3(once, interface) is once
        assert as_asgi3(once) is once


class TestWhatIsNoApplication:
    @pytest.mark.parametrize(("value", "message"), [
        (None, "an object of type 'NoneType' cannot be called"),
        ({"type": "http"}, "an object of type 'dict' cannot be called"),
        (sys, "'sys' (module) cannot be called"),
        (Instance, "'Instance' is a class; name an application made of it, such as Instance(), or use --factory"),
        (WebsocketConsumer, "such as WebsocketConsumer.as_asgi()"),
        (lambda: asgi3, "if it makes the application, use --factory"),
        (lambda a, b, c, d: None, "does not take the three arguments scope, receive and send"),
    ])  # fmt: skip
    def test_it_is_refused_on_one_line_that_helps(self, value: Any, message: str) -> None:
        with pytest.raises(SettingsError) as caught:
            as_asgi3(value)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_coroutine_function_with_other_arguments_is_refused(self) -> None:
        async def other(request: Any) -> None: ...

        with pytest.raises(SettingsError, match=r"'.*other' \(function\) does not take the three arguments"):
            as_asgi3(other)

    def test_a_coroutine_function_without_arguments_is_taken_for_a_factory(self) -> None:
        async def factory() -> None: ...

        with pytest.raises(SettingsError, match="--factory"):
            as_asgi3(factory)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An import path and a table of modules that are put back afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("loaded"):
            del sys.modules[name]


APPLICATION = "async def {}(scope, receive, send): ...\n"


def write(folder: Path, **modules: str) -> None:
    """Write modules by name; a double underscore in a name stands for a dot."""
    for name, source in modules.items():
        file = folder.joinpath(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)


def load(path: str, folder: Path, **settings: Any) -> Any:
    return load_application(path, Settings(app_dir=str(folder), **settings))


def failure(path: str, folder: Path, **settings: Any) -> str:
    """The message of the SettingsError that loading gives; always one line."""
    with pytest.raises(SettingsError) as caught:
        load(path, folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestFindingTheObject:
    def test_module_and_attribute(self, folder: Path) -> None:
        write(folder, loaded1=APPLICATION.format("mine"))
        assert load("loaded1:mine", folder).__name__ == "mine"

    def test_module_in_a_package_and_attribute_of_an_attribute(self, folder: Path) -> None:
        write(folder, loaded2__inner__asgi="class Site:\n class part:\n  " + APPLICATION.format("run"))
        assert load("loaded2.inner.asgi:Site.part.run", folder).__qualname__ == "Site.part.run"

    @pytest.mark.parametrize(
        ("names", "found"),
        [(["app", "application"], "application"), (["application"], "application"), (["app"], "app")]
    )
    def test_a_module_alone_means_its_application_then_its_app(
        self, folder: Path, names: list[str], found: str
    ) -> None:
        write(folder, loaded3="".join(APPLICATION.format(name) for name in names))
        assert load("loaded3", folder).__name__ == found
        del sys.modules["loaded3"]

    def test_the_folder_of_app_dir_comes_first_and_absolute(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(folder, loaded4=APPLICATION.format("application"))
        monkeypatch.chdir(folder)
        load("loaded4", Path("."))
        assert sys.path[0] == str(folder)
        load("loaded4", Path("."))
        assert sys.path.count(str(folder)) == 1

    def test_a_module_written_just_now_is_found(self, folder: Path) -> None:
        assert "no module named" in failure("loaded5", folder)
        listed = folder.stat()
        write(folder, loaded5=APPLICATION.format("app"))
        # As on a file system whose clock is coarse: Python cannot see then that its list of the folder is old.
        os.utime(folder, ns=(listed.st_atime_ns, listed.st_mtime_ns))
        assert load("loaded5", folder).__name__ == "app"


class TestWrongNames:
    @pytest.mark.parametrize(("path", "dotted"), [
        ("app.py:app", "'app:app'"),
        ("app.py", "'app'"),
        ("site/app:app", "'site.app:app'"),
        ("./site/app.py:app", "'site.app:app'"),
    ])  # fmt: skip
    def test_a_file_is_answered_with_the_dotted_name(self, folder: Path, path: str, dotted: str) -> None:
        message = failure(path, folder)
        assert "is a file's path" in message
        assert message.endswith(dotted)

    @pytest.mark.parametrize("path", ["", ":app", "module:", ".module:app", "module..x:app", "a:b:c", "a:b..c", "a:.b"])
    def test_anything_incomplete_is_answered_with_an_example(self, folder: Path, path: str) -> None:
        assert failure(path, folder) == f"expected MODULE:ATTRIBUTE, like 'mysite.asgi:application', got {path!r}"

    def test_a_missing_module_is_named_with_the_folder_looked_in(self, folder: Path) -> None:
        message = failure("loaded_missing:app", folder)
        assert message.startswith(f"no module named 'loaded_missing', neither in {folder} nor")
        assert "--app-dir" in message

    def test_a_missing_package_is_named_with_what_needs_it(self, folder: Path) -> None:
        assert "no module named 'loaded_gone', needed for 'loaded_gone.asgi'" in failure("loaded_gone.asgi:app", folder)

    def test_a_dot_for_the_colon_is_noticed(self, folder: Path) -> None:
        write(folder, loaded6__asgi=APPLICATION.format("application"))
        message = failure("loaded6.asgi.application", folder)
        assert message == "'loaded6.asgi.application' is no module; did you mean 'loaded6.asgi:application'?"

    def test_a_missing_attribute_is_answered_with_what_there_is(self, folder: Path) -> None:
        write(folder, loaded7="from json import loads\n" + APPLICATION.format("app") + APPLICATION.format("other"))
        assert failure("loaded7:application", folder) == "module 'loaded7' has no attribute 'application'; it has 'app'"

    def test_a_misspelt_attribute_is_answered_with_its_likes(self, folder: Path) -> None:
        write(folder, loaded8=APPLICATION.format("my_site") + APPLICATION.format("another"))
        assert failure("loaded8:mysite", folder).endswith("; it has 'my_site'")

    def test_a_missing_attribute_of_an_attribute_says_of_which(self, folder: Path) -> None:
        write(folder, loaded9="class Site: pass\nSIZE = 3")
        assert failure("loaded9:Site.app", folder) == "'Site' in module 'loaded9' has no attribute 'app'"
        assert failure("loaded9:SIZE.app", folder) == "'SIZE' in module 'loaded9' has no attribute 'app'"

    def test_a_module_alone_without_the_usual_names_lists_others(self, folder: Path) -> None:
        write(folder, loaded10="from json import loads\n" + APPLICATION.format("site"))
        message = failure("loaded10", folder)
        assert message == (
            "module 'loaded10' has neither 'application' nor 'app'; write 'loaded10:NAME'; it has 'site'"
        )

    def test_a_missing_app_dir_is_named(self, folder: Path) -> None:
        assert failure("app:app", folder / "nowhere") == f"app_dir: there is no folder '{folder / 'nowhere'}'"


class TestMistakesInsideTheApplication:
    def test_another_missing_module_keeps_its_own_error(self, folder: Path) -> None:
        write(folder, loaded11="import loaded_not_installed")
        with pytest.raises(ModuleNotFoundError, match="loaded_not_installed"):
            load("loaded11:app", folder)

    def test_a_missing_submodule_of_its_own_package_keeps_its_own_error(self, folder: Path) -> None:
        write(folder, loaded12__asgi="import loaded12.views")
        with pytest.raises(ModuleNotFoundError, match=r"loaded12\.views"):
            load("loaded12.asgi:app", folder)

    @pytest.mark.parametrize(
        ("source", "error"),
        [("1/0", ZeroDivisionError), ("def", SyntaxError), ("from json import nothing", ImportError)],
    )
    def test_what_it_raises_passes_through(self, folder: Path, source: str, error: type[Exception]) -> None:
        write(folder, loaded13=source)
        with pytest.raises(error):
            load("loaded13:app", folder)
        sys.modules.pop("loaded13", None)


class TestFactory:
    def test_it_is_called_without_arguments(self, folder: Path) -> None:
        write(folder, loaded14=APPLICATION.format("made") + "def create(debug=False): return made")
        assert load("loaded14:create", folder, factory=True).__name__ == "made"

    def test_a_class_makes_its_instance(self, folder: Path) -> None:
        write(folder, loaded15="class Site:\n async def __call__(self, scope, receive, send): ...")
        assert type(load("loaded15:Site", folder, factory=True)).__name__ == "Site"

    def test_what_it_made_is_wrapped(self, folder: Path) -> None:
        write(folder, loaded16="def create():\n def site(environ, start_response): ...\n return site")
        assert isinstance(load("loaded16:create", folder, factory=True, interface="wsgi"), WSGI)

    def test_its_exception_passes_through(self, folder: Path) -> None:
        write(folder, loaded17="def create(): return {}['key']")
        with pytest.raises(KeyError, match="key"):
            load("loaded17:create", folder, factory=True)

    @pytest.mark.parametrize(("source", "message"), [
        ("create = 3", "--factory: an object of type 'int' cannot be called"),
        ("def create(settings): ...", "--factory: 'loaded18:create' cannot be called without arguments"),
        ("async def create(): ...", "--factory: 'loaded18:create' is a coroutine function"),
        ("def create(): ...", "an object of type 'NoneType' cannot be called"),
    ])  # fmt: skip
    def test_what_is_no_factory_is_refused(self, folder: Path, source: str, message: str) -> None:
        write(folder, loaded18=source)
        assert failure("loaded18:create", folder, factory=True).startswith(message)
        del sys.modules["loaded18"]
