"""sttd: a speech-to-text daemon, and the documented Python interface to its recognizers.

stt = STTFactory.get_instance("faster_whisper")
await stt.initialize()
text = await stt.transcribe(pcm)  # 16-bit little-endian, 16 kHz, mono
"""

from sttd.recognizers.base import STTInterface
from sttd.recognizers.registry import STTFactory

__version__ = "0.1.0"

__all__ = ["STTFactory", "STTInterface", "__version__"]
