"""The stand-ins, and daemons that use them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cloud.deepgram_standin import DeepgramStandin
from tests.cloud.groq_standin import GroqStandin
from tests.cloud.standin import Certificates
from tests.support import KEY, Daemon, running_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Starter = Callable[..., AbstractContextManager[Daemon]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def _groq(certificates: Certificates, models: Path) -> Iterator[GroqStandin]:
    standin = GroqStandin(certificates, models / "faster_whisper/tiny.en")
    with standin.running():
        yield standin


@pytest.fixture
def groq(_groq: GroqStandin) -> Iterator[GroqStandin]:
    """A stand-in to which nothing has been sent."""
    _groq.seen.clear()
    yield _groq
    _groq.settle()


@pytest.fixture(scope="session")
def _deepgram(certificates: Certificates, still_models: Path) -> Iterator[DeepgramStandin]:
    standin = DeepgramStandin(certificates, still_models / "vosk/vosk-small-ko")
    with standin.running():
        yield standin


@pytest.fixture
def deepgram(_deepgram: DeepgramStandin) -> Iterator[DeepgramStandin]:
    """A stand-in to which nothing has been sent."""
    _deepgram.streams.clear()
    yield _deepgram
    _deepgram.settle()


def starter(provider: str, standin: GroqStandin | DeepgramStandin, models: Path) -> Starter:
    """Starts daemons with a cloud provider."""

    @contextmanager
    def start(*settings: str, fallback: str = "", key: str = KEY, **extra: Any) -> Iterator[Daemon]:
        arguments = [f"{provider}.base_url={standin.base_url}", f"fallback={fallback}", *settings]
        environment: dict[str, Any] = {f"{provider.upper()}_API_KEY": key, **extra}
        environment["SSL_CERT_FILE"] = str(standin.certificates.file)
        words = [word for setting in arguments for word in ("--set", setting)]
        with running_daemon(models, "--provider", provider, *words, **environment) as daemon:
            yield daemon

    return start


@pytest.fixture(scope="session")
def start_groq(_groq: GroqStandin, models: Path) -> Starter:
    """Starts a daemon with the groq provider."""
    return starter("groq", _groq, models)


@pytest.fixture(scope="session")
def groq_daemon(start_groq: Starter) -> Iterator[Daemon]:
    """One with the default settings, for all tests that change nothing about it."""
    with start_groq() as daemon:
        yield daemon


@pytest.fixture(scope="session")
def start_deepgram(_deepgram: DeepgramStandin, still_models: Path) -> Starter:
    """Starts a daemon with the deepgram provider."""
    return starter("deepgram", _deepgram, still_models)


@pytest.fixture(scope="session")
def deepgram_daemon(start_deepgram: Starter) -> Iterator[Daemon]:
    """One with the default settings, for all tests that change nothing about it."""
    with start_deepgram() as daemon:
        yield daemon
