"""Which providers there are. An engine or a cloud is one line here; other packages register entry points."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from sttd.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sttd.config.config import Config
    from sttd.providers.base import Provider
    from sttd.providers.plugin import STTInterface

ENTRY_POINTS = "sttd.providers"
STREAMING, BATCH = "sttd.providers.local:StreamingProvider", "sttd.providers.local:BatchProvider"
ENGINES = {
    "faster_whisper": ("sttd.engines.whisper:FasterWhisperEngine", BATCH),
    "vosk": ("sttd.engines.vosk:VoskEngine", STREAMING),
}
"""By name: where the Engine class is, and the provider for its kind. Imported when it is configured."""
CLOUDS = {
    "groq": "sttd.clouds.groq:Groq",
    "deepgram": "sttd.clouds.deepgram:Deepgram",
}
"""By name: where the Cloud class is."""


def provider_names() -> tuple[str, ...]:
    """Every name that the setting `provider` may have."""
    return tuple(dict.fromkeys((*ENGINES, *CLOUDS, *_plugins())))


def open_provider(config: Config) -> Provider:
    """Return the configured provider; nothing is loaded yet.

    Raises ValueError if there is no such provider, Unavailable if it cannot run here, and ConfigError if the settings
    forbid it or if it has no API key.
    """
    name = config.provider
    if name in ENGINES:
        engine, provider_class = map(_load, ENGINES[name])
        _need(engine.library, name, engine.extra)
        provider: Provider = provider_class(config, engine)
        return provider
    if name in CLOUDS:
        cloud = _load(CLOUDS[name])
        _need(cloud.library, name, name)
        local = local_config(config)
        from sttd.providers.cloud import CloudProvider

        return CloudProvider(config, cloud, open_provider(local) if local else None)
    from sttd.providers.plugin import PluginProvider

    return PluginProvider(config, plugin_class(name))


def local_config(config: Config) -> Config | None:
    """Return the settings of the provider on this machine: the configured one, or a cloud's fallback, if any."""
    if config.provider not in CLOUDS:
        return config
    return replace(config, provider=config.fallback, model=config.fallback_model) if config.fallback else None


def plugin_class(name: str) -> type[STTInterface]:
    """Return the class that another package has registered.

    Raises ValueError if there is none of that name, Unavailable if it cannot be used.
    """
    from sttd.providers.plugin import STTInterface

    plugins = _plugins()
    if name not in plugins:
        raise ValueError(f"Unsupported STT provider: {name}")
    try:
        found = plugins[name].load()
    except Exception as error:
        raise Unavailable(f"the provider {name} ({plugins[name].value}) does not import: {error!r}") from error
    if not (isinstance(found, type) and issubclass(found, STTInterface)):
        raise Unavailable(f"the provider {name} ({plugins[name].value}) is not an STTInterface class")
    return found


def _plugins() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _need(library: str, provider: str, extra: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise Unavailable(f"the provider {provider} needs the extra {extra!r}: pip install 'sttd[{extra}]'")
