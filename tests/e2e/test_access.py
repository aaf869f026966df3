"""Who may connect, from outside: tokens, web pages, TLS, and reading them again."""

from __future__ import annotations

import base64
import json
import signal
import ssl
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.support import Clip, Daemon, at_16k_mono, finals, json_events, running_daemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-token-nobody-may-read-anywhere"
TOKENS = f'kitchen = {{ token = "{TOKEN}", sessions = 1 }}\n'


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.toml"
    file.write_text(TOKENS)
    return file


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    tokens = tmp_path_factory.mktemp("access") / "tokens.toml"
    tokens.write_text(TOKENS)
    with running_daemon(models, "--set", f"access.tokens_file={tokens}", "--log-level", "debug") as daemon:
        yield daemon
        assert TOKEN not in daemon.log() + "".join(daemon.lines)


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refusal(daemon: Daemon, path: str = "/ws/stt", **arguments: Any) -> tuple[int, str, Any]:
    with pytest.raises(InvalidStatus) as caught, connect(daemon.url(path), **arguments):
        pass
    response = caught.value.response
    return response.status_code, response.body.decode(), response.headers


@pytest.mark.parametrize("path", ["/ws/stt", "/api/v1/ws"])
def test_without_the_token_nobody_gets_in(guarded: Daemon, path: str) -> None:
    status, body, headers = refusal(guarded, path)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer TOKEN" in body
    assert refusal(guarded, path, additional_headers=bearer("wrong"))[:2] == (401, "This token is not known.\n")
    assert refusal(guarded, f"{path}?token={TOKEN}")[0] == 401, "not enabled"


def test_with_it_text_comes_and_the_number_of_sessions_is_kept(guarded: Daemon, beckett: Clip) -> None:
    with connect(guarded.url("/ws/stt"), additional_headers=bearer()) as client:
        assert finals(json_events(client, at_16k_mono(beckett)))
    wait_for_a_place(guarded)
    encoded = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    offered = [Subprotocol("sttd.v1"), Subprotocol(f"sttd.token.{encoded}")]
    with connect(guarded.url("/api/v1/ws"), subprotocols=offered) as client:
        assert client.subprotocol == "sttd.v1"
        status, body, headers = refusal(guarded, additional_headers=bearer())
        assert (status, headers["Retry-After"]) == (503, "5")
        assert "'kitchen' has its 1 sessions" in body
        assert 'sttd_limits_hit_total{limit="token_sessions"}' in guarded.get("/metrics", "localhost")[1]
    wait_for_a_place(guarded)
    with connect(guarded.url("/ws/stt"), additional_headers=bearer()) as client:
        assert json.loads(client.recv()) == {"type": "ready"}


def wait_for_a_place(daemon: Daemon) -> None:
    """The one session of the token ends some time after its client."""

    def free() -> bool:
        with suppress(InvalidStatus), connect(daemon.url("/ws/stt"), additional_headers=bearer()):
            return True
        return False

    wait_until(free, 10, "a place")
    wait_until(lambda: daemon.status()["sessions"] == 0, 10, "the session that tried to end")
    time.sleep(0.2)


def test_pages_of_other_sites_are_kept_out(whisper: Daemon) -> None:
    status, body, _headers = refusal(whisper, origin="https://evil.example")
    assert status == 403
    assert "access.origins" in body
    with connect(whisper.url("/ws/stt"), origin=Origin("http://localhost:8080")) as client:
        assert json.loads(client.recv()) == {"type": "ready"}


def test_a_reload_takes_over_what_can_be_and_names_what_cannot(models: Path, tmp_path: Path, tokens: Path) -> None:
    settings = tmp_path / "sttd.toml"
    settings.write_text("")
    with running_daemon(models, "--config", str(settings)) as daemon:
        with connect(daemon.url("/ws/stt")) as kept:
            assert json.loads(kept.recv()) == {"type": "ready"}
            settings.write_text(
                f'provider = "vosk"\n[access]\ntokens_file = "{tokens}"\n[limits]\ntext_bytes = 300\n'
                '[log]\nlevel = "debug"\n'
            )
            hang_up(daemon, "reloaded: access.tokens_file, limits.text_bytes, log.level")
            assert "provider cannot be changed without a restart" in daemon.log()
            assert refusal(daemon)[0] == 401
            kept.send('{"type": "eof"}')
            assert list(kept) == [], "who was there stays"
        tokens.write_text("nonsense")
        hang_up(daemon, "nothing is reloaded, all stays as it was")
        settings.write_text("[limits]\nconnections = 0\n")
        hang_up(daemon, "limits.connections = 0 is not allowed")
        with connect(daemon.url("/ws/stt"), additional_headers=bearer()) as client:
            assert json.loads(client.recv()) == {"type": "ready"}


def hang_up(daemon: Daemon, expected: str) -> None:
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: expected in daemon.log(), 10, expected)


def test_tls_and_its_certificate_are_read_again(models: Path, tmp_path: Path, beckett: Clip) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    pem = tmp_path / "server.pem"

    def issue() -> str:
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()).hex()

    def shown(url: str) -> str:
        with connect(url, ssl=context) as client:
            certificate = client.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            assert client.socket.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
            return str(certificate.hex())

    first = issue()
    with running_daemon(models, "--set", f"server.tls_cert={pem}", "--set", "server.tls_listen=127.0.0.1:0") as daemon:
        url = next(line.split()[-1] for line in daemon.lines if "JSON events" in line)
        assert url.startswith("wss://")
        assert shown(url) == first
        with connect(url, ssl=context) as client:
            assert finals(json_events(client, at_16k_mono(beckett)))
        second = issue()
        hang_up(daemon, "reloaded: nothing changed")
        assert shown(url) == second
        pem.write_text("garbage")
        hang_up(daemon, "nothing is reloaded")
        assert shown(url) == second
        old = ssl.create_default_context()
        authority.configure_trust(old)
        with warnings.catch_warnings(action="ignore"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)), connect(url, ssl=old):
            pass


def metrics(daemon: Daemon) -> dict[str, float]:
    status, text = daemon.get("/metrics", host="localhost")
    assert status == 200
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_metrics(guarded: Daemon, beckett: Clip) -> None:
    wait_for_a_place(guarded)
    before = metrics(guarded)
    refusal(guarded)
    with connect(guarded.url("/ws/stt"), additional_headers=bearer()) as client:
        assert json.loads(client.recv()) == {"type": "ready"}
        during = metrics(guarded)
        json_events(client, at_16k_mono(beckett))
    wait_until(lambda: guarded.status()["sessions"] == 0, 10, "the session to end")
    found = metrics(guarded)
    grown = {name: value - before.get(name, 0) for name, value in found.items()}
    labels, provider = '{protocol="json",provider="faster_whisper"}', '{provider="faster_whisper"}'
    assert during[f"sttd_sessions{labels}"] == 1
    assert found[f"sttd_sessions{labels}"] == 0
    assert grown[f"sttd_audio_seconds_total{labels}"] == pytest.approx(len(at_16k_mono(beckett)) / 32000, 0.01)
    assert grown[f"sttd_utterances_total{labels}"] >= 2
    assert grown[f"sttd_finalization_seconds_count{provider}"] >= 2
    assert 0 < grown[f"sttd_realtime_factor_sum{provider}"] < 20
    assert grown['sttd_rejected_connections_total{reason="token"}'] == 1
    assert found['sttd_model_load_seconds{model="tiny.en",provider="faster_whisper"}'] > 0
    assert found["process_resident_memory_bytes"] > 1e7
    assert found["sttd_event_loop_lag_seconds_count"] > 0
    assert guarded.get("/metrics", host="evil.example")[0] == 403


def test_health_can_have_a_listener_of_its_own(models: Path) -> None:
    arguments = ("--set", "server.health_listen=127.0.0.1:0", "--log-level", "debug")
    with running_daemon(models, *arguments) as daemon:
        address = next(line.split("//")[1].split("/")[0] for line in daemon.lines if "health" in line)
        main, daemon.address = daemon.address, address
        assert daemon.get("/livez") == (200, "ok\n")
        assert daemon.get("/metrics", host="localhost")[0] == 200
        assert refusal(daemon)[0] == 404
        daemon.address = main
