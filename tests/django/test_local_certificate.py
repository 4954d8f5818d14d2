"""The certificate for this machine: its names, its files, and when it is made anew."""

from __future__ import annotations

import os
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from asgiserver.django import local_certificate as module
from asgiserver.django.local_certificate import cache_folder, local_certificate
from asgiserver.errors import SettingsError
from asgiserver.transport.certificates import load


def names(certfile: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(certfile.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestMaking:
    def test_it_is_for_the_loopback_names_and_the_authority_has_signed_it(self, tmp_path: Path) -> None:
        made = local_certificate(cache=tmp_path)
        assert names(made.certfile) == {"localhost", "127.0.0.1", "::1"}
        leaf, authority = (
            x509.load_pem_x509_certificate(path.read_bytes()) for path in (made.certfile, made.authority)
        )
        leaf.verify_directly_issued_by(authority)
        left = leaf.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=364) < left < timedelta(days=397)
        # Both are what the server and a client take.
        load(str(made.certfile), None)
        ssl.create_default_context(cafile=made.authority)

    @pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "shop.example"])
    def test_it_is_for_the_host_too(self, tmp_path: Path, host: str) -> None:
        made = local_certificate(host, tmp_path)
        assert names(made.certfile) == {"localhost", "127.0.0.1", "::1", host}
        assert ":" not in made.certfile.parent.name
        assert local_certificate(cache=tmp_path) != made

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "0.0.0.0", "0", "::"])
    def test_a_host_that_adds_nothing_has_the_same_one(self, tmp_path: Path, host: str) -> None:
        assert local_certificate(host, tmp_path) == local_certificate(cache=tmp_path)

    def test_the_authoritys_key_is_nowhere_and_the_other_is_the_users_alone(self, tmp_path: Path) -> None:
        made = local_certificate(cache=tmp_path)
        private = {path: text.count(b"PRIVATE KEY-----") for path, text in everything(tmp_path).items()}
        assert private == {made.certfile: 2, made.authority: 0}
        if os.name == "posix":
            assert stat.S_IMODE(made.certfile.stat().st_mode) == 0o600
            assert stat.S_IMODE(made.certfile.parent.stat().st_mode) == 0o700

    def test_a_host_that_is_no_name(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"^--tls: no certificate can be made for"):
            local_certificate("a" * 64 + ".example", tmp_path)
        assert everything(tmp_path) == {}

    @pytest.mark.parametrize("missing", ["trustme", "cryptography.x509"])
    def test_without_what_it_needs(self, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(SettingsError, match=rf"^--tls needs {missing}: install asgiserver\[runserver\]$"):
            local_certificate(cache=tmp_path)

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "asgiserver").write_text("a file")
        with pytest.raises(SettingsError, match=r"^--tls: cannot keep a certificate"):
            local_certificate(cache=tmp_path)


class TestKeeping:
    def test_it_is_made_once(self, tmp_path: Path) -> None:
        local_certificate(cache=tmp_path)
        first = everything(tmp_path)
        local_certificate(cache=tmp_path)
        assert everything(tmp_path) == first

    @pytest.mark.parametrize("harm", ["gone", "garbage", "another authority", "ends soon", "readable by others"])
    def test_one_that_is_not_good_is_made_anew(
        self, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if harm == "ends soon":
            with monkeypatch.context() as patch:
                patch.setattr(module, "_LIFETIME", timedelta(hours=1))
                made = local_certificate(cache=tmp_path)
        else:
            made = local_certificate(cache=tmp_path)
        first = made.certfile.read_bytes()
        if harm == "gone":
            made.authority.unlink()
        elif harm == "garbage":
            made.certfile.write_bytes(b"nonsense")
        elif harm == "another authority":
            made.authority.write_bytes(trustme.CA().cert_pem.bytes())
        elif harm == "readable by others":
            made.certfile.chmod(0o644)
        again = local_certificate(cache=tmp_path)
        assert again == made
        assert again.certfile.read_bytes() != first
        assert {path.name for path in everything(tmp_path)} == {made.certfile.name, made.authority.name}

    def test_of_two_at_once_the_first_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other: dict[Path, bytes] = {}
        replace = module._replace

        def late(place: Path, new: Path) -> None:
            monkeypatch.setattr(module, "_replace", replace)
            local_certificate(cache=tmp_path)
            other.update(everything(place))
            replace(place, new)

        monkeypatch.setattr(module, "_replace", late)
        made = local_certificate(cache=tmp_path)
        assert everything(tmp_path) == other
        assert set(other) == {made.certfile, made.authority}

    def test_even_if_it_wins_by_less(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = local_certificate(cache=tmp_path)
        first = everything(tmp_path)
        answers = iter([False, False, True])
        monkeypatch.setattr(module, "_is_good", lambda _: next(answers))
        monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
        assert local_certificate(cache=tmp_path) == made
        assert {path: everything(tmp_path)[path] for path in first} == first


class TestFolder:
    def test_is_the_cache_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
        assert cache_folder() == tmp_path / "local"
        monkeypatch.delenv("LOCALAPPDATA")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache"
