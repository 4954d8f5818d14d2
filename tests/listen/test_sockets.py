"""What of listening sockets can be told without one; the rest is in e2e/test_endpoints.py."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from asgiserver.errors import ListenError
from asgiserver.listen.sockets import activated_descriptors, bind_tcp, bind_unix, inherit, listening, unlink_if_same


class TestListening:
    def test_an_os_error_becomes_one_line_with_the_address_and_the_cause(self) -> None:
        with pytest.raises(ListenError) as caught, listening("[::1]:80"):
            raise PermissionError(errno.EACCES, "Permission denied")
        assert str(caught.value) == "cannot listen on [::1]:80: Permission denied"
        assert isinstance(caught.value.__cause__, PermissionError)

    @pytest.mark.parametrize(
        ("number", "port", "told"),
        [
            (errno.EADDRINUSE, 8000, "Told: ss -ltnp 'sport = :8000' shows by whom"),
            (errno.EACCES, 80, "Told: ports below 1024 are for root; take one from 1024 on, a socket of systemd's"),
            (errno.EACCES, 8000, "Told"),
            (errno.EADDRINUSE, None, "Told"),
        ],
    )
    def test_what_helps_is_told(self, number: int, port: int | None, told: str) -> None:
        with pytest.raises(ListenError) as caught, listening("x", port):
            raise OSError(number, "Told")
        assert str(caught.value).startswith(f"cannot listen on x: {told}")
        assert len(told) > len("Told") or str(caught.value).endswith("Told")

    def test_an_os_error_without_a_number_keeps_its_text(self) -> None:
        with (
            pytest.raises(ListenError, match=r"^cannot listen on unix:/x: AF_UNIX path too long$"),
            listening("unix:/x"),
        ):
            raise OSError("AF_UNIX path too long")

    def test_a_listen_error_is_not_wrapped_again(self) -> None:
        error = ListenError("another server listens there")
        with pytest.raises(ListenError) as caught, listening("unix:/x"):
            raise error
        assert caught.value is error

    def test_other_exceptions_pass(self) -> None:
        with pytest.raises(ZeroDivisionError), listening("127.0.0.1:80"):
            raise ZeroDivisionError


class TestActivatedDescriptors:
    def environ(self, **more: str) -> dict[str, str]:
        return {"LISTEN_PID": "42", "LISTEN_FDS": "3", **more}

    def test_an_index_counts_from_descriptor_3(self) -> None:
        assert activated_descriptors(0, None, self.environ(), 42) == [3]
        assert activated_descriptors(2, None, self.environ(), 42) == [5]

    def test_names_may_be_missing(self) -> None:
        assert "LISTEN_FDNAMES" not in self.environ()
        assert activated_descriptors(1, None, self.environ(), 42) == [4]

    def test_a_name_gives_each_socket_that_has_it(self) -> None:
        environ = self.environ(LISTEN_FDNAMES="web:admin:web")
        assert activated_descriptors(None, "web", environ, 42) == [3, 5]
        assert activated_descriptors(None, "admin", environ, 42) == [4]

    @pytest.mark.parametrize("names", ["", "admin", "web2:xweb:"])
    def test_an_unknown_name_is_an_error(self, names: str) -> None:
        with pytest.raises(ListenError, match="no socket with the name 'web'"):
            activated_descriptors(None, "web", self.environ(LISTEN_FDNAMES=names), 42)

    def test_more_names_than_sockets_name_none(self) -> None:
        with pytest.raises(ListenError, match="'late'"):
            activated_descriptors(None, "late", self.environ(LISTEN_FDNAMES="a:b:c:late"), 42)

    @pytest.mark.parametrize("index", [3, 100, -1])
    def test_an_index_out_of_range_is_an_error(self, index: int) -> None:
        with pytest.raises(ListenError, match=f"3 sockets, none with index {index}"):
            activated_descriptors(index, None, self.environ(), 42)

    @pytest.mark.parametrize("count", ["", "many", "-1", "0"])
    def test_a_count_that_is_none_hands_over_nothing(self, count: str) -> None:
        with pytest.raises(ListenError, match="0 sockets"):
            activated_descriptors(0, None, self.environ(LISTEN_FDS=count), 42)

    @pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "41"}])
    def test_what_is_meant_for_another_process_is_not_taken(self, environ: dict[str, str]) -> None:
        with pytest.raises(ListenError, match="LISTEN_PID"):
            activated_descriptors(0, None, environ, 42)

    def test_the_process_and_its_environment_are_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        assert activated_descriptors(0, None) == [3]


class TestUnlinkIfSame:
    def test_the_file_itself_is_unlinked(self, tmp_path: Path) -> None:
        path = tmp_path / "x.sock"
        path.touch()
        unlink_if_same(str(path), path.lstat())
        assert not path.exists()

    def test_another_file_in_its_place_stays(self, tmp_path: Path) -> None:
        path, old = tmp_path / "x.sock", tmp_path / "old"
        old.touch()
        path.touch()
        unlink_if_same(str(path), old.lstat())
        assert path.exists()

    def test_a_link_to_it_stays(self, tmp_path: Path) -> None:
        path, link = tmp_path / "x.sock", tmp_path / "link"
        path.touch()
        link.symlink_to(path)
        unlink_if_same(str(link), path.lstat())
        assert link.is_symlink()
        assert path.exists()

    def test_no_file_is_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "x.sock"
        path.touch()
        file = path.lstat()
        path.unlink()
        unlink_if_same(str(path), file)


class TestRefusals:
    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_a_file_that_is_no_socket_is_never_deleted(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "precious"
        if kind == "file":
            path.write_text("precious")
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(tmp_path / "nowhere")
        with pytest.raises(ListenError, match="is not a socket"):
            bind_unix(str(path), 0o666, 10)
        assert os.path.lexists(path)

    def test_a_descriptor_that_is_not_open(self) -> None:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.close(descriptor)
        with pytest.raises(ListenError, match=rf"^cannot listen on file descriptor {descriptor}: Bad file descriptor$"):
            inherit(descriptor)

    def test_a_descriptor_that_is_no_socket(self) -> None:
        with open(os.devnull, "rb") as file, pytest.raises(ListenError, match=r"(?i)non-socket|not a socket"):
            inherit(file.fileno())

    def test_no_address_at_all(self) -> None:
        with pytest.raises(OSError, match="no address"):
            bind_tcp([], 10)

    def test_the_first_address_gives_the_cause_when_none_works(self) -> None:
        not_ours, reserved = (socket.AF_INET, ("192.0.2.1", 0)), (socket.AF_INET6, ("2001:db8::1", 0))
        with pytest.raises(OSError) as caught:
            bind_tcp([not_ours, reserved], 10)
        assert caught.value.errno == errno.EADDRNOTAVAIL
        assert "192.0.2.1" not in str(caught.value), "the caller names the address"
