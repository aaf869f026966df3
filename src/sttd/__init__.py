"""sttd: a speech-to-text daemon, and the documented Python interface to its recognizers.

stt = STTFactory.get_instance("faster_whisper")
await stt.initialize()
text = await stt.transcribe(pcm)  # 16-bit little-endian, 16 kHz, mono
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sttd.interface import STTFactory, STTInterface

__version__ = "0.1.0"

__all__ = ["STTFactory", "STTInterface", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the interface when it is first used (PEP 562): `sttd --help` need not wait for it."""
    if name in ("STTFactory", "STTInterface"):
        from sttd import interface

        return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
