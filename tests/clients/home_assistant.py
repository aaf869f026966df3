"""Home Assistant's own Wyoming integration against a running sttd. Runs in Home Assistant's environment.

Home Assistant is made from its parts, without its web page: the integration is set up by its config flow, and its
speech-to-text entity is called as a voice assistant calls it. Prints a line of JSON for each call.

Usage: home_assistant.py HOST PORT < a JSON list of [name, language (empty: the entity's first), PCM in base64]
"""

# Home Assistant is not installed where types are checked.
# mypy: ignore-errors
import asyncio
import base64
import json
import socket
import sys
import tempfile
import time

from homeassistant import auth, config_entries, core, loader
from homeassistant.components import stt
from homeassistant.helpers import (
    area_registry,
    device_registry,
    entity,
    entity_registry,
    issue_registry,
    restore_state,
    translation,
)
from homeassistant.setup import async_setup_component

WITHIN_S = 60


async def home_assistant(folder):
    hass = core.HomeAssistant(folder)
    hass.config.skip_pip = True
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    entity.async_setup(hass)
    loader.async_setup(hass)
    translation.async_setup(hass)
    for registry in (area_registry, device_registry, entity_registry, issue_registry):
        await registry.async_load(hass)
    await restore_state.async_load(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [], [])
    await hass.config_entries.async_initialize()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"http": {"http": {"server_host": "127.0.0.1", "server_port": port}}}
    for component in ("homeassistant", "http", "stt"):
        assert await async_setup_component(hass, component, settings.get(component, {})), component
    return hass


async def chunks(pcm):
    for start in range(0, len(pcm), 2048):
        yield pcm[start : start + 2048]


async def say(found, name, language, pcm):
    metadata = stt.SpeechMetadata(
        language=language or found.supported_languages[0],
        format=stt.AudioFormats.WAV,
        codec=stt.AudioCodecs.PCM,
        bit_rate=stt.AudioBitRates.BITRATE_16,
        sample_rate=stt.AudioSampleRates.SAMPLERATE_16000,
        channel=stt.AudioChannels.CHANNEL_MONO,
    )
    began = time.monotonic()
    result = await asyncio.wait_for(found.async_process_audio_stream(metadata, chunks(pcm)), WITHIN_S)
    took = round(time.monotonic() - began, 2)
    print(json.dumps({"name": name, "result": result.result.value, "text": result.text, "seconds": took}), flush=True)


async def main(host, port):
    with tempfile.TemporaryDirectory() as folder:
        hass = await home_assistant(folder)
        flow = await hass.config_entries.flow.async_init(
            "wyoming", context={"source": "user"}, data={"host": host, "port": port}
        )
        assert flow["type"] == "create_entry", flow
        await hass.async_block_till_done()
        (name,) = hass.states.async_entity_ids("stt")
        found = stt.async_get_speech_to_text_entity(hass, name)
        print(json.dumps({"entity": name, "languages": found.supported_languages}), flush=True)
        calls = [(name, language, base64.b64decode(pcm)) for name, language, pcm in json.load(sys.stdin)]
        for call in calls:
            await say(found, *call)
        await asyncio.gather(*(say(found, f"at once: {name}", language, pcm) for name, language, pcm in calls))
        await hass.async_stop(force=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
