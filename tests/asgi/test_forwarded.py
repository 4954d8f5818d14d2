from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi import forwarded
from asgiserver.asgi.forwarded import MAX_HOPS, MAX_PARAMETERS, MAX_SIZE, Forwarding, TrustedPeers
from asgiserver.asgi.interfaces import Headers
from asgiserver.errors import SettingsError
from asgiserver.settings import Settings

PROXY = ("10.0.0.1", 4711)
TRUSTED = ("10.0.0.0/8", "127.0.0.1", "::1", "2001:db8:f::/48")


class Believed(NamedTuple):
    """All but the request's id."""

    client: tuple[str, int] | None
    scheme: str
    host: bytes | None


def resolve(
    *lines: str | bytes,
    client: tuple[str, int] | None = PROXY,
    scheme: str = "http",
    trusted: tuple[str, ...] = TRUSTED,
    announced_by: tuple[str, int] | str | None = "nobody",
    **settings: str,
) -> Believed:
    """What is believed of a request with field lines such as ``"x-forwarded-for: 1.2.3.4"``."""
    forwarding = Forwarding(Settings(proxy_headers=True, forwarded_allow_ips=trusted, **settings))  # type: ignore[arg-type]
    announced = announced_by != "nobody"
    peer: Any = announced_by if announced else client
    return Believed(*forwarding.resolve(fields(*lines), client, scheme, peer, announced=announced)[:3])


def fields(*lines: str | bytes) -> Headers:
    pairs = []
    for line in lines:
        name, _, value = (line.encode("latin-1") if isinstance(line, str) else line).partition(b":")
        pairs.append((name, value.strip()))
    return pairs


class TestTrustedPeers:
    @pytest.mark.parametrize(("entry", "address"), [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("192.0.2.0/24", "192.0.2.255"),
        ("0.0.0.0/0", "203.0.113.9"),
        ("2001:db8::1", "2001:0db8:0:0:0:0:0:1"),
        ("2001:db8::/32", "2001:db8:ffff::"),
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.9"),
        ("fe80::1", "fe80::1%eth0"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::/10", "fe80::1%eth0"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("*", "anything"),
    ])  # fmt: skip
    def test_an_entry_trusts_the_addresses_that_it_names(self, entry: str, address: str) -> None:
        assert (address, 1) in TrustedPeers([entry])

    @pytest.mark.parametrize(("entry", "address"), [
        ("192.0.2.7", "192.0.2.8"), ("192.0.2.0/24", "192.0.3.0"), ("0.0.0.0/0", "2001:db8::1"), ("::/0", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7%eth0"), ("192.0.2.7", "not an address"), ("unix", "192.0.2.7"), ("", "192.0.2.7"),
    ])  # fmt: skip
    def test_an_entry_trusts_nobody_else(self, entry: str, address: str) -> None:
        assert (address, 1) not in TrustedPeers([entry])

    def test_peers_on_a_unix_socket_need_the_word_or_a_star(self) -> None:
        assert None in TrustedPeers(["unix"])
        assert None in TrustedPeers(["*"])
        assert None not in TrustedPeers(["127.0.0.1", "0.0.0.0/0"])

    @pytest.mark.parametrize(
        "entry",
        ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.256", "010.0.0.1", "10.0.0.1:80", "[::1]", "Unix", "1"],
    )
    def test_a_malformed_entry_is_an_error_that_names_it(self, entry: str) -> None:
        with pytest.raises(SettingsError, match="forwarded_allow_ips") as caught:
            TrustedPeers(["127.0.0.1", entry])
        assert repr(entry) in str(caught.value)


    def test_a_malformed_entry_is_one_of_the_setting_that_has_it(self) -> None:
        with pytest.raises(SettingsError, match="proxy_allow_ips: expected"):
            TrustedPeers(["x"], "proxy_allow_ips")


class TestWhoIsBelieved:
    def test_without_a_forwarding_field_nothing_changes(self) -> None:
        assert resolve("host: a.example", scheme="https") == (PROXY, "https", None)

    @pytest.mark.parametrize("client", [("192.0.2.1", 5), None])
    def test_of_a_peer_that_is_not_trusted_nothing_is_believed(self, client: tuple[str, int] | None) -> None:
        lines = [
            "x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https", "x-forwarded-host: evil", "forwarded: for=1.2.3.4",
        ]  # fmt: skip
        assert resolve(*lines, client=client) == (client, "http", None)
        assert resolve(lines[-1], client=client) == (client, "http", None)

    def test_a_unix_peer_that_is_trusted_is_replaced_by_the_client(self) -> None:
        found = resolve("x-forwarded-for: 1.2.3.4:99", "x-forwarded-proto: https", client=None, trusted=("unix",))
        assert found == (("1.2.3.4", 99), "https", None)

    def test_a_unix_peer_without_an_address_stays_none(self) -> None:
        assert resolve("x-forwarded-proto: https", client=None, trusted=("unix",)) == (None, "https", None)

    def test_names_with_underscores_are_other_fields(self) -> None:
        assert resolve("x_forwarded_for: 1.2.3.4").client == PROXY


class TestXForwardedFor:
    @pytest.mark.parametrize(("entry", "client"), [
        ("1.2.3.4", ("1.2.3.4", 0)),
        ("1.2.3.4:80", ("1.2.3.4", 80)),
        ("1.2.3.4:0", ("1.2.3.4", 0)),
        ("1.2.3.4:65535", ("1.2.3.4", 65535)),
        ("1.2.3.4:_hidden", ("1.2.3.4", 0)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("2001:DB8:0::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1", 80)),
        ("::ffff:1.2.3.4", ("1.2.3.4", 0)),
    ])  # fmt: skip
    def test_an_entry_is_an_address_with_or_without_port(self, entry: str, client: tuple[str, int]) -> None:
        assert resolve(f"x-forwarded-for: {entry}").client == client

    @pytest.mark.parametrize("entry", [
        "unknown", "_hidden", "localhost", "1.2.3", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+1",
        "1.2.3.4:8o", "1.2.3.4:100000", "[1.2.3.4]", "[2001:db8::1", "[2001:db8::1]80", "[2001:db8::1]:",
        "2001:db8::1]", "[]", ":", ":80", "1.2.3.4 5.6.7.8", "<script>", "\xb2.2.3.4", "9" * 5000,
    ])  # fmt: skip
    def test_a_malformed_entry_leaves_the_client(self, entry: str) -> None:
        assert resolve(f"x-forwarded-for: {entry}").client == PROXY

    def test_a_malformed_entry_ends_the_walk_at_the_last_trusted_address(self) -> None:
        assert resolve("x-forwarded-for: 1.2.3.4, unknown, 10.0.0.7:80, 10.0.0.8").client == ("10.0.0.7", 80)

    @pytest.mark.parametrize("value", ["", " ", ",", " , ,"])
    def test_an_empty_field_leaves_the_client(self, value: str) -> None:
        assert resolve(f"x-forwarded-for: {value}").client == PROXY

    def test_the_client_is_the_first_from_the_right_that_is_not_trusted(self) -> None:
        assert resolve("x-forwarded-for: 6.6.6.6, 1.2.3.4, 10.0.0.9, 127.0.0.1").client == ("1.2.3.4", 0)

    def test_a_mapped_address_is_recognised_as_trusted(self) -> None:
        assert resolve("x-forwarded-for: 1.2.3.4, ::ffff:10.0.0.9", client=("::ffff:10.0.0.1", 1)).client == (
            "1.2.3.4",
            0,
        )

    def test_when_all_are_trusted_the_leftmost_is_the_client(self) -> None:
        assert resolve("x-forwarded-for: 10.0.0.7, 10.0.0.8").client == ("10.0.0.7", 0)
        assert resolve("x-forwarded-for: 6.6.6.6, 1.2.3.4", trusted=("*",)).client == ("6.6.6.6", 0)

    def test_several_lines_are_one_list(self) -> None:
        lines = ["x-forwarded-for: 6.6.6.6", "accept: */*", "x-forwarded-for: 1.2.3.4,", "x-forwarded-for: 10.0.0.9"]
        assert resolve(*lines).client == ("1.2.3.4", 0)

    def test_a_unix_socket_on_the_way_is_a_hop_when_unix_is_trusted(self) -> None:
        line = "x-forwarded-for: 1.2.3.4, unix:"
        assert resolve(line, trusted=("10.0.0.1", "unix")).client == ("1.2.3.4", 0)
        assert resolve(line, trusted=("10.0.0.1",)).client == PROXY

    def test_only_so_many_hops_are_looked_at(self) -> None:
        def chain(hops: int) -> str:
            return "x-forwarded-for: 1.2.3.4" + ", 10.0.0.9" * hops

        assert resolve(chain(MAX_HOPS - 1)).client == ("1.2.3.4", 0)
        assert resolve(chain(MAX_HOPS)).client == ("10.0.0.9", 0)

    def test_a_list_made_long_by_the_client_does_not_hide_its_address(self) -> None:
        for filling in (",", "x", "6.6.6.6,", '"'):
            assert resolve("x-forwarded-for: " + filling * 60_000 + ", 1.2.3.4").client == ("1.2.3.4", 0)


class TestXForwardedPort:
    def test_it_is_used_for_an_entry_without_port(self) -> None:
        assert resolve("x-forwarded-for: 1.2.3.4", "x-forwarded-port: 1, 99").client == ("1.2.3.4", 99)

    def test_the_entrys_own_port_goes_first(self) -> None:
        assert resolve("x-forwarded-for: 1.2.3.4:7", "x-forwarded-port: 99").client == ("1.2.3.4", 7)

    @pytest.mark.parametrize("port", ["", "-1", "65536", "8o", "٣", "\xb2", "1.0", "9" * 5000])
    def test_a_wrong_port_counts_as_none(self, port: str) -> None:
        line = b"x-forwarded-port: " + port.encode("utf-8")
        assert resolve("x-forwarded-for: 1.2.3.4", line).client == ("1.2.3.4", 0)

    def test_alone_it_changes_nothing(self) -> None:
        assert resolve("x-forwarded-port: 99") == (PROXY, "http", None)
        assert resolve("x-forwarded-for: unknown", "x-forwarded-port: 99").client == PROXY


class TestXForwardedProto:
    @pytest.mark.parametrize(("value", "scheme"), [
        ("http", "http"), ("https", "https"), ("ws", "http"), ("wss", "https"), ("HTTPS", "https"),
        ("http, https", "https"),
    ])  # fmt: skip
    def test_the_last_value_is_the_scheme(self, value: str, scheme: str) -> None:
        other = {"http": "https", "https": "http"}[scheme]
        assert resolve(f"x-forwarded-proto: {value}", scheme=other) == (PROXY, scheme, None)

    @pytest.mark.parametrize("value", ["gopher", "", "https http", "https, ftp", "\xe9"])
    def test_any_other_value_is_ignored(self, value: str) -> None:
        assert resolve(f"x-forwarded-proto: {value}").scheme == "http"
        assert resolve(f"x-forwarded-proto: {value}", scheme="https").scheme == "https"

    def test_the_last_line_goes_first(self) -> None:
        assert resolve("x-forwarded-proto: http", "x-forwarded-proto: https").scheme == "https"


class TestXForwardedHost:
    @pytest.mark.parametrize("host", [
        "a.example", "a.example:8080", "a.example:", "1.2.3.4:80", "[::1]", "[::1]:80", "xn--bcher-kva.example", "a_b",
        "%41",
    ])  # fmt: skip
    def test_it_is_the_new_host(self, host: str) -> None:
        assert resolve(f"x-forwarded-host: {host}") == (PROXY, "http", host.encode())

    def test_the_last_value_counts(self) -> None:
        assert resolve("x-forwarded-host: a", "x-forwarded-host: b, c.example").host == b"c.example"

    @pytest.mark.parametrize("host", [
        "", "a b", "a/b", "a?b", "a#b", "user@a", "a:b", "a:123456", "a:1:2", ":80", "[::1", "[::g]", "[1.2.3.4]x",
        "%4", "%zz", "[.]", "a\x00b", "b\xfccher.example", '"a"', "a\\b", "<a>",
    ])  # fmt: skip
    def test_what_could_not_be_a_host_field_is_ignored(self, host: str) -> None:
        assert resolve(f"x-forwarded-host: {host}").host is None

    def test_it_is_not_put_together_with_the_port(self) -> None:
        assert resolve("x-forwarded-host: a.example", "x-forwarded-port: 99").host == b"a.example"


class TestRFC7239:
    @pytest.mark.parametrize(("value", "found"), [
        ("for=1.2.3.4", (("1.2.3.4", 0), "http", None)),
        ('for="1.2.3.4:80"', (("1.2.3.4", 80), "http", None)),
        ("for=1.2.3.4:80", (("1.2.3.4", 80), "http", None)),
        ('For="[2001:db8:cafe::17]:4711"', (("2001:db8:cafe::17", 4711), "http", None)),
        ('for="[2001:db8:cafe::17]"', (("2001:db8:cafe::17", 0), "http", None)),
        ('for="1.2.3.4:_port"', (("1.2.3.4", 0), "http", None)),
        ("for=192.0.2.60;proto=https;by=203.0.113.43", (("192.0.2.60", 0), "https", None)),
        ("FOR=192.0.2.60 ; PROTO=HTTPS ; host=a.example", (("192.0.2.60", 0), "https", b"a.example")),
        ('host="a.example:8080";for=1.2.3.4', (("1.2.3.4", 0), "http", b"a.example:8080")),
        ('for="1\\.2.3\\.4"', (("1.2.3.4", 0), "http", None)),
        ('secret="a,b;for=6.6.6.6\\"";for=1.2.3.4', (("1.2.3.4", 0), "http", None)),
        ('for=1.2.3.4;ext=""', (("1.2.3.4", 0), "http", None)),
        (";for=1.2.3.4;", (("1.2.3.4", 0), "http", None)),
        (", for=1.2.3.4 ,", (("1.2.3.4", 0), "http", None)),
        ("proto=wss", (PROXY, "https", None)),
        ("host=a.example", (PROXY, "http", b"a.example")),
        ("proto=gopher;host=a/b;for=1.2.3.4", (("1.2.3.4", 0), "http", None)),
    ])  # fmt: skip
    def test_its_parameters_give_client_scheme_and_host(self, value: str, found: Any) -> None:
        assert resolve(f"forwarded: {value}") == found

    @pytest.mark.parametrize(
        "value", ["for=unknown", 'for="_gazonk"', "for=_gazonk:80", 'for="unknown:80"', "by=1.2.3.4", ""]
    )
    def test_an_unknown_client_leaves_the_peer(self, value: str) -> None:
        assert resolve(f"forwarded: {value}") == (PROXY, "http", None)

    @pytest.mark.parametrize("value", [
        "for=", "for", "for =1.2.3.4", "for= 1.2.3.4", 'for="1.2.3.4', 'for="1.2.3.4\\"', "for=1.2.3.4;for=5.6.7.8",
        "for=1.2.3.4;FOR=1.2.3.4", "=1.2.3.4", "1.2.3.4", 'for=1.2"3.4"', 'for="1.2.3.4"x', "for=1.2.3.4 proto=https",
        "for=1\\.2.3.4", "f(r=1.2.3.4", "for=1.2.3.4\n",
    ])  # fmt: skip
    def test_a_malformed_field_changes_nothing(self, value: str) -> None:
        line = b"forwarded", (value + ";proto=https").encode()
        forwarding = Forwarding(Settings(forwarded_allow_ips=TRUSTED))
        assert forwarding.resolve([line], PROXY, "http", PROXY) == (PROXY, "http", None, None)

    def test_the_client_is_the_first_from_the_right_that_is_not_trusted(self) -> None:
        assert resolve("forwarded: for=6.6.6.6;host=evil, for=1.2.3.4, for=10.0.0.9") == (("1.2.3.4", 0), "http", None)

    def test_several_lines_are_one_list(self) -> None:
        assert resolve("forwarded: for=1.2.3.4, for=10.0.0.8", "forwarded: for=10.0.0.9").client == ("1.2.3.4", 0)

    def test_scheme_and_host_are_those_of_the_hop_farthest_out_that_is_believed(self) -> None:
        near = "for=10.0.0.9;proto=http;host=inner"
        assert resolve(f"forwarded: for=6.6.6.6;proto=http, for=1.2.3.4;proto=https;host=a.example, {near}") == (
            ("1.2.3.4", 0), "https", b"a.example",
        )  # fmt: skip
        assert resolve(f"forwarded: for=1.2.3.4;proto=https, {near}") == (("1.2.3.4", 0), "https", b"inner")
        assert resolve(f"forwarded: for=1.2.3.4;proto=https, for=unknown, {near}") == (
            ("10.0.0.9", 0), "http", b"inner",
        )  # fmt: skip

    @pytest.mark.parametrize(
        "rubbish", ['for="', 'for="\\', "for", "\xff", "=;=", 'x="a,b', '"' * 3, "a=b," * 5000, "x" * 60_000]
    )
    def test_rubbish_sent_by_the_client_does_not_hide_its_address(self, rubbish: str) -> None:
        assert resolve(f"forwarded: {rubbish}, for=1.2.3.4;proto=https") == (("1.2.3.4", 0), "https", None)
        assert resolve(f"forwarded: {rubbish}", "forwarded: for=1.2.3.4;proto=https") == (("1.2.3.4", 0), "https", None)

    @pytest.mark.parametrize(
        "quoted", ["a,for=6.6.6.6", 'a,for=\\"6.6.6.6\\"', "a,for=6.6.6.6;b=", 'a\\",for=6.6.6.6;b=\\"']
    )
    def test_nothing_within_quotes_is_taken_for_an_element(self, quoted: str) -> None:
        element = f'for=1.2.3.4;host="{quoted}";proto=https'
        assert resolve(f"forwarded: {element}").client == ("1.2.3.4", 0)
        assert resolve(f'forwarded: x=", {element}').client == PROXY

    def test_only_so_many_hops_are_looked_at(self) -> None:
        assert resolve("forwarded: for=1.2.3.4" + ", for=10.0.0.9" * (MAX_HOPS - 1)).client == ("1.2.3.4", 0)
        assert resolve("forwarded: for=1.2.3.4" + ", for=10.0.0.9" * MAX_HOPS).client == ("10.0.0.9", 0)

    @pytest.mark.parametrize(
        "filling", [" ", "\t ", ";", ",", '"', "\\", 'a="\\\\', "a=b;", "a", '"\\"', "=", 'a="b",']
    )
    def test_reading_takes_no_longer_than_the_field_is_long(self, filling: str) -> None:
        before = time.process_time()
        resolve("forwarded: a=b" + filling * (60_000 // len(filling)))
        resolve("forwarded: a=b" + filling * ((MAX_SIZE - 100) // len(filling)) + '"')
        assert time.process_time() - before < 0.5


class Patterns:
    """Stands for the pattern of a parameter, and counts what it is asked for."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.asked = 0

    def match(self, *args: Any) -> Any:
        self.asked += 1
        return self.real.match(*args)


#: Values of at most 65,536 bytes together, as few and as many field lines as a head may have.
MANY = [1, 2, 8, 100]
FILLINGS = [
    ",", " ,", ", ", ";", ";,", "a=b,", "a=b;", "a=b;c=d,", '"', '"",', 'a="b",', 'a=",', "\\,", " ", "\t", "x,", "x",
]  # fmt: skip


class TestWork:
    """How much of a list is looked at does not depend on how long its writer makes it."""

    @pytest.mark.parametrize("lines", MANY)
    @pytest.mark.parametrize("filling", FILLINGS)
    def test_of_forwarded_is_bounded(self, filling: str, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
        patterns = Patterns(forwarded._PAIR)
        monkeypatch.setattr(forwarded, "_PAIR", patterns)
        value = filling * (65_536 // lines // len(filling))
        for end in ("", ", for=10.0.0.9", '"', ",", ";"):
            patterns.asked = 0
            resolve(*[f"forwarded: {value}{end}"] * lines, trusted=("*",))
            # Of good lines, and once more of one that turns out to be too long.
            assert patterns.asked <= 4 * MAX_HOPS * MAX_PARAMETERS

    def test_of_commas_is_no_more_than_that_of_hops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        patterns = Patterns(forwarded._PAIR)
        monkeypatch.setattr(forwarded, "_PAIR", patterns)
        for line in ("," * 65_000, "," * 640, "," * MAX_HOPS, ""):
            patterns.asked = 0
            resolve(*[f"forwarded: {line}"] * 100)
            assert patterns.asked <= 2 * MAX_HOPS + 2

    @pytest.mark.parametrize("lines", MANY)
    @pytest.mark.parametrize("filling", FILLINGS)
    def test_of_the_other_family_is_bounded(self, filling: str, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
        looked_at = 0

        def split(line: bytes, real: Any = forwarded._split) -> Iterator[bytes]:
            nonlocal looked_at
            for entry in real(line):
                looked_at += 1
                yield entry

        monkeypatch.setattr(forwarded, "_split", split)
        value = filling * (65_536 // lines // len(filling))
        for name in ("for", "port", "proto", "host"):
            looked_at = 0
            resolve(*[f"x-forwarded-{name}: {value}"] * lines, trusted=("*",))
            # Of one field it is the list, of the others the last value that counts.
            assert looked_at <= 2 * MAX_HOPS

    def test_a_host_is_of_a_bounded_length(self) -> None:
        assert resolve("x-forwarded-host: " + "a" * 1024).host == b"a" * 1024
        assert resolve("x-forwarded-host: " + "a" * 1025).host is None

    def test_an_element_has_a_bounded_number_of_parameters(self) -> None:
        several = "".join(f"p{number}=v;" for number in range(MAX_PARAMETERS - 1))
        assert resolve(f"forwarded: for=6.6.6.6, {several}for=1.2.3.4").client == ("1.2.3.4", 0)
        assert resolve(f"forwarded: for=6.6.6.6, {several}x=y;for=1.2.3.4").client == PROXY
        assert resolve(f"forwarded: {several}x=y;for=6.6.6.6, for=1.2.3.4").client == ("1.2.3.4", 0)

    def test_empty_elements_count(self) -> None:
        assert resolve("forwarded: for=1.2.3.4" + "," * (MAX_HOPS - 1)).client == ("1.2.3.4", 0)
        assert resolve("forwarded: for=1.2.3.4" + "," * MAX_HOPS).client == PROXY
        assert resolve("x-forwarded-for: 1.2.3.4" + "," * (MAX_HOPS - 1)).client == ("1.2.3.4", 0)
        assert resolve("x-forwarded-for: 1.2.3.4" + "," * MAX_HOPS).client == PROXY
        assert resolve("x-forwarded-for: 1.2.3.4", *["x-forwarded-for:"] * MAX_HOPS).client == PROXY


class TestBesideAPROXYHeader:
    """The peer that has connected is believed, or not; what its PROXY header announces is one hop more."""

    CLIENT = ("203.0.113.9", 5)
    CDN = ("10.9.9.9", 5)

    @pytest.mark.parametrize("peer", [PROXY, ("::1", 1), ("::ffff:10.0.0.1", 1)])
    @pytest.mark.parametrize("line", ["x-forwarded-proto: https", "forwarded: proto=https"])
    def test_a_trusted_peer_gives_the_scheme(self, peer: tuple[str, int], line: str) -> None:
        assert resolve(line, client=self.CLIENT, announced_by=peer) == (self.CLIENT, "https", None)

    @pytest.mark.parametrize("client", [CLIENT, PROXY, None])
    @pytest.mark.parametrize("peer", [("192.0.2.1", 5), None])
    def test_of_another_peer_nothing_is_believed(self, client: Any, peer: Any) -> None:
        for lines in (["x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https"], ["forwarded: for=1.2.3.4;proto=https"]):
            assert resolve(*lines, client=client, announced_by=peer) == (client, "http", None)

    def test_a_peer_on_a_unix_socket_is_one_that_can_be_trusted(self) -> None:
        found = resolve("x-forwarded-proto: https", client=self.CLIENT, announced_by=None, trusted=("unix",))
        assert found == (self.CLIENT, "https", None)

    @pytest.mark.parametrize(
        "lines", [["x-forwarded-for: 1.2.3.4", "x-forwarded-host: a"], ["forwarded: for=1.2.3.4;host=a"]]
    )
    @pytest.mark.parametrize("trusted", [TRUSTED, (*TRUSTED, "unix")])
    def test_addresses_stop_at_an_announced_one_that_is_not_trusted(self, lines: list[str], trusted: Any) -> None:
        """A None that is announced is a client on some unix socket of the proxy's machine, not of ours."""
        for client in (self.CLIENT, None):
            assert resolve(*lines, client=client, announced_by=PROXY, trusted=trusted) == (client, "http", b"a")

    @pytest.mark.parametrize("line", ["x-forwarded-for: 6.6.6.6, 1.2.3.4", "forwarded: for=6.6.6.6, for=1.2.3.4"])
    def test_addresses_go_on_behind_an_announced_one_that_is_trusted(self, line: str) -> None:
        assert resolve(line, client=self.CDN, announced_by=PROXY).client == ("1.2.3.4", 0)
        # A proxy that speaks HTTP has added what it announces.
        added = f"{line}, {'for=' * line.startswith('forwarded')}{self.CDN[0]}"
        assert resolve(added, client=self.CDN, announced_by=PROXY).client == ("1.2.3.4", 0)

    def test_of_forwarded_only_the_nearest_element_is_the_peers(self) -> None:
        line = "forwarded: for=1.2.3.4;proto=http;host=evil, for=203.0.113.9;proto=https"
        assert resolve(line, client=self.CLIENT, announced_by=PROXY) == (self.CLIENT, "https", None)


class TestWhichFamilyIsRead:
    @pytest.mark.parametrize(
        "line", ["x-forwarded-for: 1.2.3.4", "x-forwarded-proto: https", "x-forwarded-host: a.example"]
    )
    def test_forwarded_is_not_read_beside_the_other_family(self, line: str) -> None:
        assert resolve("forwarded: for=6.6.6.6;proto=http;host=evil", line) == resolve(line)

    def test_the_setting_can_say_that_only_forwarded_is_read(self) -> None:
        lines = [
            "x-forwarded-for: 6.6.6.6", "forwarded: for=1.2.3.4", "x-forwarded-host: evil", "x-forwarded-proto: https",
        ]  # fmt: skip
        assert resolve(*lines, proxy_headers_host="Forwarded") == (("1.2.3.4", 0), "http", None)
        assert resolve(lines[0], proxy_headers_host="Forwarded").client == PROXY

    def test_the_setting_can_say_that_forwarded_is_never_read(self) -> None:
        assert resolve("forwarded: for=6.6.6.6", proxy_headers_host="X-Forwarded-For").client == PROXY

    def test_fields_can_have_other_names(self) -> None:
        names = {
            "proxy_headers_host": "X-Real-IP",
            "proxy_headers_port": "x-real-PORT",
            "proxy_headers_proto": "X-Scheme",
        }
        lines = ["x-real-ip: 1.2.3.4", "x-real-port: 99", "x-scheme: https"]
        assert resolve(*lines, **names) == (("1.2.3.4", 99), "https", None)
        others = ["x-forwarded-for: 6.6.6.6", "x-forwarded-proto: http", "x-forwarded-port: 6"]
        assert resolve(*others, **names) == (PROXY, "http", None)

    @pytest.mark.parametrize("setting", ["proxy_headers_host", "proxy_headers_port", "proxy_headers_proto"])
    @pytest.mark.parametrize("name", ["X Real", "X-Real:", "\xe9", "a\n"])
    def test_a_name_that_no_field_can_have_is_an_error(self, setting: str, name: str) -> None:
        with pytest.raises(SettingsError, match=f"{setting}: expected a field's name"):
            resolve(**{setting: name})


NAMES = [b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"host"]
PIECES = st.sampled_from(
    [
        b"for=", b"proto=", b"host=", b"1.2.3.4", b"10.0.0.9", b"[::1]", b":80", b'"', b"\\", b",", b";", b" ", b"=",
        b"https", b"unix:",
    ]
)
VALUES = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=20).map(b"".join))


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6),
    st.sampled_from([PROXY, None, ("6.6.6.6", 1), ("rubbish", 1)]),
    st.sampled_from([("*",), ("unix", "10.0.0.0/8"), ()]),
)
def test_whatever_is_sent_the_answer_is_well_formed(
    headers: Headers, client: tuple[str, int] | None, trusted: tuple[str, ...]
) -> None:
    found = Forwarding(Settings(forwarded_allow_ips=trusted)).resolve(headers, client, "http", client)
    assert found.scheme in ("http", "https")
    assert found.request_id is None or re.fullmatch(r"[^\s\"',\\]{1,128}", found.request_id, re.ASCII)
    assert found.host is None or found.host and not set(found.host) & set(b'\r\n\0 ,"/@')
    if found.client != client:
        assert found.client is not None
        assert (found.client[0], 0) in TrustedPeers(["0.0.0.0/0", "::/0"])
        assert 0 <= found.client[1] <= 65535
