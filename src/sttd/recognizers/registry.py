"""Which providers there are: the engines of sttd, and classes that other packages register."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar, cast

from sttd.config import Config
from sttd.errors import Unavailable
from sttd.recognizers.base import Cloud, Engine, STTInterface

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY_POINTS = "sttd.providers"
_ENGINES = {
    "faster_whisper": "sttd.recognizers.whisper:FasterWhisperEngine",
    "vosk": "sttd.recognizers.vosk:VoskEngine",
}
_CLOUDS = {
    "groq": "sttd.recognizers.groq:Groq",
    "deepgram": "sttd.recognizers.deepgram:Deepgram",
}


def _plugins() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def provider_names() -> tuple[str, ...]:
    """Every name that the setting `provider` may have."""
    return tuple(dict.fromkeys((*_ENGINES, *_CLOUDS, *_plugins())))


def provider_class(provider: str) -> type[Engine | Cloud | STTInterface]:
    """The class behind a provider's name.

    ValueError where there is no such provider, Unavailable where it cannot run here.
    """
    if provider in _ENGINES:
        module, _, name = _ENGINES[provider].partition(":")
        engine = cast("type[Engine]", getattr(importlib.import_module(module), name))
        if importlib.util.find_spec(engine.library) is None:
            raise Unavailable(
                f"the provider {provider} needs the extra {engine.extra!r}: pip install 'sttd[{engine.extra}]'"
            )
        return engine
    if provider in _CLOUDS:
        module, _, name = _CLOUDS[provider].partition(":")
        cloud = cast("type[Cloud]", getattr(importlib.import_module(module), name))
        if importlib.util.find_spec(cloud.library) is None:
            raise Unavailable(f"the provider {provider} needs the extra {provider!r}: pip install 'sttd[{provider}]'")
        return cloud
    plugins = _plugins()
    if provider not in plugins:
        raise ValueError(f"Unsupported STT provider: {provider}")
    try:
        found = plugins[provider].load()
    except Exception as error:
        raise Unavailable(f"the provider {provider} ({plugins[provider].value}) does not import: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, STTInterface)):
        raise Unavailable(f"the provider {provider} ({plugins[provider].value}) is not an STTInterface class")
    return found


def local_config(config: Config) -> Config | None:
    """The settings of the local provider: of `provider` itself, or of the one to fall back on from the cloud."""
    if config.provider not in _CLOUDS:
        return config
    return replace(config, provider=config.fallback, model=config.fallback_model) if config.fallback else None


class STTFactory:
    """Services by provider, as documented for `/api/v1/ws`."""

    _instances: ClassVar[dict[str, STTInterface]] = {}

    @classmethod
    def get_instance(cls, provider: str) -> STTInterface:
        """The one instance of a provider, with default settings; ValueError where there is no such provider."""
        from sttd.recognizers.local import CloudService, LocalService

        if provider not in cls._instances:
            found = provider_class(provider)
            if issubclass(found, Engine):
                cls._instances[provider] = LocalService(found, Config(provider=provider))
            elif issubclass(found, Cloud):
                cls._instances[provider] = CloudService(found, Config(provider=provider))
            else:
                cls._instances[provider] = found()
        return cls._instances[provider]
