"""The service class of pipecat. Arguments: base URL, file, language."""

# The package is not installed where types are checked.
# mypy: ignore-errors

import asyncio
import json
import sys
from pathlib import Path

from pipecat.services.openai.stt import OpenAISTTService


async def texts(url: str, audio: bytes, language: str) -> list[str]:
    settings = OpenAISTTService.Settings(model="whisper-1", language=language)
    service = OpenAISTTService(api_key="unused", base_url=url, settings=settings)
    return [frame.text async for frame in service.run_stt(audio)]


url, path, language = sys.argv[1:]
print(json.dumps({"texts": asyncio.run(texts(url, Path(path).read_bytes(), language))}))
