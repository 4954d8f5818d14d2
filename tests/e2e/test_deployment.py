"""The files of examples/deploy do what they say.

Those for nginx, HAProxy and systemd are run as they are, but for names, ports and paths. Of the others the commands are
parsed as the server parses them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from asgiserver.cli import CommandLineInterface
from asgiserver.metrics.counts import Counts
from asgiserver.metrics.exposition import exposition
from asgiserver.settings import Settings
from tests.e2e.proxies import nginx
from tests.e2e.server import DEADLINE, ROOT, ServerProcess, free_port, free_ports, handed_over, running, wait_for
from tests.e2e.test_workers_systemd import Systemd
from tests.metrics.board import Service
from tests.programs import require

DEPLOY = ROOT / "examples" / "deploy"
PROJECT = ("--app-dir", "examples/django_project", "project.asgi:application")
BEHIND_A_PROXY = ("--proxy-headers", "--forwarded-allow-ips", "unix")


def replaced(text: str, values: dict[str, str]) -> str:
    """``text`` with each key of ``values`` replaced by its value; a key that is not there fails the test."""
    for old, new in values.items():
        assert old in text, f"{old!r} is no longer in the file"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short name, for unix sockets; open to nginx's workers, which are another user's under root."""
    path = Path(tempfile.mkdtemp(prefix="asgi"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="class")
def proxy(folder: Path) -> Iterator[str]:
    """The URL of an nginx with our file, in front of the Django example on a unix socket."""
    port, path = free_port(), folder / "board.sock"
    site = replaced(
        (DEPLOY / "nginx.conf").read_text("utf-8"),
        {"listen 80;": f"listen 127.0.0.1:{port};", "unix:/run/asgiserver/board.sock": f"unix:{path}",
         "server_name example.com;": "server_name localhost;"},
    )  # fmt: skip
    env = {"DJANGO_DATABASE": str(folder / "nginx.sqlite3")}
    with ServerProcess("-u", str(path), *BEHIND_A_PROXY, *PROJECT, env=env), nginx(folder, site, port):
        yield f"http://127.0.0.1:{port}"


class TestNginx:
    def test_pages_come_through_with_the_clients_address(self, proxy: str) -> None:
        page = httpx.get(proxy, timeout=DEADLINE)
        assert page.status_code == 200
        assert "to 127.0.0.1 over http" in page.text

    @pytest.mark.parametrize(
        "forged",
        [
            {"x-forwarded-for": "203.0.113.7"},
            {"forwarded": "for=203.0.113.7;proto=https;host=evil.example"},
            {"x-forwarded-host": "evil.example"},
            {"x-forwarded-port": "7"},
            {"x-forwarded-proto": "https"},
        ],
    )
    def test_a_client_cannot_forge_what_the_proxy_says(self, proxy: str, forged: dict[str, str]) -> None:
        page = httpx.get(proxy, headers=forged, timeout=DEADLINE)
        assert page.status_code == 200
        assert "to 127.0.0.1 over http" in page.text

    def test_an_upload_comes_through(self, proxy: str) -> None:
        with httpx.Client(base_url=proxy, follow_redirects=True, timeout=DEADLINE) as client:
            client.get("/")
            headers = {"x-csrftoken": client.cookies["csrftoken"]}
            page = client.post("/uploads/", files={"file": ("four.bin", bytes(4 << 20))}, headers=headers)
        assert page.status_code == 200
        assert "4.0\xa0MB" in page.text

    def test_a_download_comes_through_whole(self, proxy: str) -> None:
        text = httpx.get(proxy + "/numbers.csv?rows=100000", timeout=DEADLINE).text
        assert text.endswith("\n100000,10000000000\n")

    def test_a_websocket_comes_through(self, proxy: str) -> None:
        with connect("ws" + proxy.removeprefix("http") + "/ws/") as socket_:
            socket_.send("hello")
            assert socket_.recv(DEADLINE) == "HELLO"


class TestSystemd:
    @pytest.fixture
    def listening(self, folder: Path) -> Iterator[socket.socket]:
        """A listening unix socket, as the socket unit makes it."""
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(folder / "activated.sock"))
            made.listen()
            yield made
        (folder / "activated.sock").unlink()

    def test_the_units_are_accepted(self, tmp_path: Path) -> None:
        program = require("systemd-analyze")
        unit = (DEPLOY / "asgiserver.service").read_text("utf-8")
        units = [tmp_path / "asgiserver.service", tmp_path / "asgiserver.socket"]
        # A program that is not there is an error to it, and this one is not.
        units[0].write_text(replaced(unit, {"/srv/board/.venv/bin/asgiserver": sys.executable}), "utf-8")
        units[1].write_bytes((DEPLOY / "asgiserver.socket").read_bytes())
        done = subprocess.run(
            [program, "verify", *map(str, units)], capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_nginx_and_systemd_speak_of_one_socket(self) -> None:
        path = self.value("asgiserver.socket", "Socket", "ListenStream")
        assert f"server unix:{path};" in (DEPLOY / "nginx.conf").read_text("utf-8")

    def test_the_service_answers_on_the_socket_it_was_given(self, folder: Path, listening: socket.socket) -> None:
        program, *args = shlex.split(self.value("asgiserver.service", "Service", "ExecStart"))
        assert program.endswith("/bin/asgiserver")
        path = listening.getsockname()
        env = {
            "LISTEN_FDS": "1", "LISTEN_FDNAMES": "asgiserver.socket", "DJANGO_DATABASE": str(folder / "s.sqlite3"),
            "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "1000000",
        }  # fmt: skip
        with closing(Systemd(env["NOTIFY_SOCKET"])) as systemd, ServerProcess(
            *args, "--app-dir", "examples/django_project", env=env, pass_fds=[listening.fileno()],
            command=handed_over(listening.fileno(), 3),
        ) as server, httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=DEADLINE) as client:  # fmt: skip
            headers = {"x-forwarded-for": "198.51.100.4", "x-forwarded-proto": "https"}
            for name in ("READY", "WATCHDOG"):
                systemd.wait_for(name, "1")
            page = client.get("http://localhost/", headers=headers)
            assert page.status_code == 200, server.output()
            assert "to 198.51.100.4 over https" in page.text
        assert server.returncode == 0
        assert os.path.exists(path), "the socket is systemd's, and the next start needs it"

    def value(self, file: str, section: str, key: str) -> str:
        parser = RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(DEPLOY / file, "utf-8")
        return parser[section][key]


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


class TestHAProxy:
    def test_it_takes_the_file_as_it_is(self) -> None:
        done = subprocess.run(
            [require("haproxy"), "-c", "-f", str(DEPLOY / "haproxy.cfg")], capture_output=True, text=True,
            timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def test_requests_and_websockets_come_through_until_readyz_fails(self, folder: Path, tmp_path: Path) -> None:
        front, monitor = free_ports(2)
        command = ("-e", "haproxy:tcp:0:interface=127.0.0.1", "--metrics", f"tcp:{monitor}:interface=127.0.0.1")
        env = {"DJANGO_DATABASE": str(folder / "haproxy.sqlite3")}
        with ServerProcess(*command, "--shutdown-delay", "10", *PROJECT, env=env) as server:
            values = {
                "bind :8080": f"bind 127.0.0.1:{front}", "check port 9100": f"check port {monitor}",
                "chat1:8000": f"127.0.0.1:{server.port}", "chat2:8000": f"127.0.0.1:{server.port}",
                "inter 1s": "inter 50",
            }  # fmt: skip
            (tmp_path / "haproxy.cfg").write_text(replaced(text_of("haproxy.cfg"), values), "utf-8")
            url = f"http://127.0.0.1:{front}"
            with running(require("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg"), ports=[front]):
                page = httpx.get(url, headers={"x-forwarded-for": "203.0.113.7"}, timeout=DEADLINE)
                assert page.status_code == 200
                assert "to 127.0.0.1 over http" in page.text
                with connect("ws" + url.removeprefix("http") + "/ws/") as socket_:
                    socket_.send("hello")
                    assert socket_.recv(DEADLINE) == "HELLO"
                    server.send_signal(signal.SIGTERM)
                    # HAProxy sends nobody to a server that is about to stop, which serves on meanwhile.
                    wait_for(lambda: httpx.get(url, timeout=DEADLINE).status_code == 503, message=server.output())
                    socket_.send("still here")
                    assert socket_.recv(DEADLINE) == "STILL HERE"
            server.send_signal(signal.SIGQUIT)
            assert server.wait() == 0


def parsed(command: list[str]) -> Settings:
    """The settings of a command line that ends in an application."""
    interface = CommandLineInterface()
    application = interface.parse(command)
    assert (ROOT / "examples" / interface.settings.app_dir / application.partition(".")[0]).is_dir()
    return interface.settings


def stop_takes(settings: Settings) -> float:
    """The longest that a stop may take, in seconds."""
    return (settings.shutdown_delay + settings.graceful_timeout + settings.lifespan_shutdown_timeout
            + 2 * settings.exit_timeout)  # fmt: skip


def dockerfile(instruction: str) -> list[str]:
    """What follows each ``instruction`` of the Dockerfile."""
    lines = text_of("Dockerfile").splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{instruction} ")]


class TestDocker:
    def test_the_command_is_one_of_ours_and_needs_no_shell(self) -> None:
        [command] = dockerfile("CMD")
        program, *args = json.loads(command)
        assert program == "asgiserver"
        settings = parsed(args)
        assert settings.host == "0.0.0.0"
        assert set(dockerfile("EXPOSE")[0].split()) == {str(settings.port), settings.metrics[0].partition(":")[2]}

    def test_it_is_not_root_and_installs_extras_that_exist(self) -> None:
        assert dockerfile("USER") == ["10001"]
        assert f"--uid {dockerfile('USER')[0]} " in text_of("Dockerfile")
        assert "'/src[standard,examples]'" in text_of("Dockerfile")
        assert all(":3." in image and "-slim" in image for image in dockerfile("FROM"))

    def test_the_health_check_is_a_program_that_asks_the_monitor(self) -> None:
        [check] = dockerfile("HEALTHCHECK")
        python, option, program = json.loads(check.partition(" CMD ")[2])
        assert (python, option) == ("python", "-c")
        compile(program, "HEALTHCHECK", "exec")
        assert "http://127.0.0.1:9100/healthz" in program


class TestCompose:
    @pytest.fixture
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(text_of("compose.yaml"))["services"]
        return found

    def test_two_servers_have_a_command_of_ours_and_time_to_stop(self, services: dict[str, Any]) -> None:
        for name in ("chat1", "chat2"):
            program, *args = shlex.split(services[name]["command"])
            assert program == "asgiserver"
            settings = parsed(args)
            assert stop_takes(settings) < int(services[name]["stop_grace_period"].removesuffix("s"))

    def test_the_proxy_is_in_the_network_that_is_believed(self) -> None:
        text = yaml.safe_load(text_of("compose.yaml"))
        [network] = text["networks"]["default"]["ipam"]["config"]
        _, *args = shlex.split(text["services"]["chat1"]["command"])
        assert parsed(args).proxy_allow_ips == (network["subnet"],)

    def test_the_services_and_files_it_speaks_of_are_there(self, services: dict[str, Any]) -> None:
        for service in services.values():
            assert set(service.get("depends_on", ())) <= set(services)
            if "build" in service:
                assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
                assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert (DEPLOY / services["haproxy"]["volumes"][0].partition(":")[0]).is_file()
        for name in re.findall(r"\bserver (\w+) \1:8000", text_of("haproxy.cfg")):
            assert "command" in services[name]
        [scraped] = yaml.safe_load(text_of("prometheus.yml"))["scrape_configs"][0]["static_configs"]
        assert {target.partition(":")[0] for target in scraped["targets"]} == {"chat1", "chat2"}

    def test_what_it_runs_beside_is_in_the_examples(self, services: dict[str, Any]) -> None:
        for name in ("prepare", "robot"):
            for file in re.findall(r"\S+\.py", services[name]["command"]):
                assert (ROOT / "examples" / file).is_file()


class TestKubernetes:
    def test_the_pods_command_its_probes_and_its_time_to_stop(self) -> None:
        deployment, service = yaml.safe_load_all(text_of("kubernetes.yaml"))
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        program, *args = container["args"]
        assert program == "asgiserver"
        settings = parsed(args)
        assert settings.shutdown_delay > 0
        assert stop_takes(settings) < pod["terminationGracePeriodSeconds"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"http": settings.port, "metrics": int(settings.metrics[0].partition(":")[2])}
        for probe, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
            assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "metrics"}
        assert service["spec"]["ports"][0]["targetPort"] in ports
        assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


class TestSupervisord:
    @pytest.fixture
    def program(self) -> dict[str, str]:
        parser = RawConfigParser(inline_comment_prefixes=(" ;",))
        parser.read_string(text_of("supervisord.conf"))
        return dict(parser["program:board"])

    def command(self, program: dict[str, str]) -> Settings:
        path, *args = shlex.split(program["command"])
        assert path.endswith("/bin/asgiserver")
        return parsed([*args, "--app-dir", "django_project"])

    def test_its_command_has_time_to_stop(self, program: dict[str, str]) -> None:
        assert stop_takes(self.command(program)) < int(program["stopwaitsecs"])
        assert program["stopsignal"] == "TERM"

    def test_logrotate_speaks_of_its_files(self, program: dict[str, str]) -> None:
        settings, text = self.command(program), text_of("logrotate")
        assert settings.workers, "only a supervisor of workers takes SIGUSR1"
        assert f"\n{settings.access_log} {{\n" in text
        assert f'kill -USR1 "$(cat {settings.pid_file})"' in text
        assert text.count("{") == text.count("}") == 1


class TestSystemdTimes:
    def test_the_service_has_time_to_stop(self) -> None:
        text = text_of("asgiserver.service")
        found = re.search(r"^ExecStart=\S+ (.+)$", text, re.MULTILINE)
        seconds = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
        assert found
        assert seconds
        assert stop_takes(parsed([*shlex.split(found[1]), "--app-dir", "django_project"])) < int(seconds[1])


class TestGrafana:
    @pytest.fixture
    def samples(self) -> dict[str, set[str]]:
        """What ``/metrics`` has: the names of its series, with their labels."""
        service, counts = Service(), Counts()
        service.start()
        for status in (200, 500):
            counts.request(("GET", status, 0.1, 0, 0))
        service.count(0, counts)
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(exposition(service.reading)):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found

    def test_its_panels_ask_for_what_there_is(self, samples: dict[str, set[str]]) -> None:
        dashboard = json.loads(text_of("grafana-dashboard.json"))
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        assert len(expressions) > 15
        variables = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
        for expression in expressions:
            names = set(re.findall(r"asgiserver_\w+", expression))
            assert names
            assert names <= samples.keys(), expression
            labels = {"job", "instance"}.union(*(samples[name] for name in names))
            assert set(re.findall(r"[{,](\w+)[=~]", expression)) <= labels
            for listed in re.findall(r"by \(([^)]+)\)", expression):
                assert set(listed.split(", ")) <= labels, expression
            assert set(re.findall(r"\$(\w+)", expression)) <= variables
            assert expression.count("(") == expression.count(")")

    def test_its_panels_do_not_overlap(self) -> None:
        places = [tuple(panel["gridPos"].values()) for panel in json.loads(text_of("grafana-dashboard.json"))["panels"]]
        assert len(set(places)) == len(places)
