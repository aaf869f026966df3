"""Who may connect, decided from a request's head."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttd.config.config import AccessConfig, LimitsConfig
from sttd.errors import ConfigError
from sttd.http.access import Access, is_loopback
from sttd.http.admission import Admission
from sttd.http.messages import Refused

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "correct horse battery staple"
PAGE = {"origin": "http://localhost:5173", "host": "localhost:8000"}


def admitted(access: Access, headers: dict[str, str], query: str = "", *, local: bool = True) -> str:
    """The holder of the token, or why not."""
    try:
        return access.admit(headers, query, local=local).holder.name
    except Refused as refused:
        return f"{refused.status:d} {refused.reason}"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f'kitchen = "{TOKEN}"\nporch = {{ token = "another long random text", sessions = 2 }}\n')
    return file


@pytest.mark.parametrize(
    ("headers", "local", "expected"),
    [
        ({"host": "x"}, True, ""),
        ({"host": "x"}, False, ""),
        (PAGE, True, ""),
        (PAGE, False, ""),
        ({"origin": "http://localhost:5173", "host": "192.168.1.7:8000"}, False, "403 origin"),
        ({"origin": "http://127.0.0.1", "host": "127.0.0.1:8000"}, True, ""),
        ({"origin": "file://", "host": "localhost"}, True, ""),
        ({"origin": "file://", "host": "192.168.1.7:8000"}, False, ""),
        ({"origin": "null", "host": "localhost"}, True, "403 origin"),
        ({"origin": "https://evil.example", "host": "localhost:8000"}, True, "403 origin"),
        ({"origin": "http://evil.example:8000", "host": "evil.example:8000"}, True, "403 host"),
        ({"origin": "http://192.168.1.7:8000", "host": "192.168.1.7:8000"}, False, ""),
        ({"origin": "http://localhost.evil.example", "host": "localhost"}, True, "403 origin"),
        ({"origin": "", "host": "localhost"}, True, "403 origin"),
        ({"origin": "http://[::1", "host": "localhost"}, True, "403 origin"),
    ],
)
def test_pages_without_tokens(headers: dict[str, str], local: bool, expected: str) -> None:
    assert admitted(Access(AccessConfig()), headers, local=local) == expected


def test_pages_that_were_named() -> None:
    access = Access(AccessConfig(origins=("https://app.example",), hosts=("stt.example",)))
    assert admitted(access, {"origin": "https://app.example", "host": "localhost"}, local=False) == ""
    assert admitted(access, {"origin": "https://stt.example", "host": "stt.example"}, local=False) == ""
    assert admitted(access, {"origin": "https://app.example.evil", "host": "localhost"}) == "403 origin"
    assert admitted(access, PAGE) == "", "a page that this host serves itself"
    assert admitted(access, {"origin": "http://127.0.0.1", "host": "localhost"}) == "403 origin"


def test_tokens(tokens: Path) -> None:
    access = Access.read(AccessConfig(tokens_file=str(tokens)), {})
    encoded = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    assert admitted(access, {"host": "x"}) == "401 token"
    assert admitted(access, {"authorization": "Bearer wrong"}) == "401 token"
    assert admitted(access, {"authorization": f"Basic {TOKEN}"}) == "401 token"
    assert admitted(access, {"authorization": f"Bearer {TOKEN}"}) == "kitchen"
    assert admitted(access, {"authorization": f"bearer {TOKEN}", "origin": "https://any.example"}) == "kitchen"
    assert admitted(access, {"sec-websocket-protocol": f"sttd.v1, sttd.token.{encoded}"}) == "kitchen"
    assert admitted(access, {"sec-websocket-protocol": "sttd.token.%%%"}) == "401 token"
    assert admitted(access, {}, f"token={TOKEN}") == "401 token", "not enabled"


def test_a_token_in_the_query_is_taken_out_of_it(tokens: Path) -> None:
    access = Access.read(AccessConfig(tokens_file=str(tokens), query_token=True), {})
    grant = access.admit({}, "words=1&token=correct+horse%20battery+staple&language=en", local=False)
    assert (grant.holder.name, grant.query) == ("kitchen", "words=1&language=en")


def test_only_the_protocol_without_the_secret_is_selected() -> None:
    access = Access(AccessConfig())
    assert access.admit({"sec-websocket-protocol": "sttd.token.eA, sttd.v1"}, "", local=True).subprotocol == "sttd.v1"
    assert access.admit({"sec-websocket-protocol": "chat"}, "", local=True).subprotocol == ""


def test_a_token_has_a_number_of_sessions(tokens: Path) -> None:
    access, admission = Access.read(AccessConfig(tokens_file=str(tokens)), {}), Admission(LimitsConfig())
    headers = {"authorization": "Bearer another long random text"}
    holder = access.admit(headers, "", local=False).holder
    with admission.session(holder):
        with admission.session(holder), pytest.raises(Refused, match="has its 2 sessions") as refused:
            admission.session(holder).__enter__()
        assert (refused.value.status, refused.value.response.headers["Retry-After"]) == (503, "5")
        with admission.session(holder):
            pass


def test_tokens_from_systemd(tokens: Path) -> None:
    assert not Access.read(AccessConfig(), {"CREDENTIALS_DIRECTORY": str(tokens.parent)}).open
    assert Access.read(AccessConfig(), {"CREDENTIALS_DIRECTORY": "/nonexistent"}).open


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no token in it"),
        ('kitchen = "short"', "at least 16"),
        ("kitchen = 5", "a token"),
        ('kitchen = { token = "correct horse battery staple", session = 5 }', "sessions = 4"),
        ('kitchen = { token = "correct horse battery staple", sessions = -1 }', "whole number"),
        ('a = "correct horse battery staple"\nb = "correct horse battery staple"', "the same token"),
        ("kitchen", "a line of it is like"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Access.read(AccessConfig(tokens_file=str(file)), {})
    assert str(file) in str(caught.value)
    assert "correct" not in str(caught.value)


@pytest.mark.parametrize("name", ["~nobody-of-that-name/tokens", "a\0b"])
def test_a_name_that_is_none_is_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError):
        Access.read(AccessConfig(tokens_file=name), {})


def test_a_missing_file_is_no_reason_to_let_everybody_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Access.read(AccessConfig(tokens_file=str(tmp_path / "none")), {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "fe80::1%eth0", "kitchen.local"])
def test_other_machines_are_served_only_with_tokens_or_on_purpose(host: str, tokens: Path) -> None:
    with pytest.raises(ConfigError, match="allow_unauthenticated"):
        Access(AccessConfig()).check_address(host)
    Access(AccessConfig(allow_unauthenticated=True)).check_address(host)
    Access.read(AccessConfig(tokens_file=str(tokens)), {}).check_address(host)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "LOCALHOST", "::ffff:127.0.0.1"]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    Access(AccessConfig()).check_address(host)


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 0), ("10.0.0.1", 0), ("[::1]:3000", 0), ("", 0), ("evil.example", 403), ("[", 403)],
)
def test_plain_requests_are_answered_under_this_machine_s_names(host: str, status: int) -> None:
    try:
        Access(AccessConfig()).admit_plain({"host": host}, local=False)
        found = 0
    except Refused as refused:
        found = int(refused.status)
    assert found == status


headers = st.dictionaries(
    st.sampled_from(["origin", "host", "authorization", "sec-websocket-protocol"]), st.text(max_size=30), max_size=4
)


@given(headers, st.text(max_size=30), st.booleans())
def test_any_head_is_admitted_or_refused(found: dict[str, str], query: str, local: bool) -> None:
    access = Access(AccessConfig(query_token=True), Access(AccessConfig()).holders)
    admitted(access, found, query, local=local)
