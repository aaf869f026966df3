"""The documents' FastAPI server around faster-whisper, in our words: a message of PCM in, its text out.

python -m bench.peers.fastapi_sample MODEL_FOLDER PORT
"""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from faster_whisper import WhisperModel

app = FastAPI()
model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8")


@app.websocket("/api/v1/ws")
async def transcribe(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            pcm = await websocket.receive_bytes()
            audio = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768.0
            segments, _info = model.transcribe(audio)
            await websocket.send_text(" ".join(segment.text.strip() for segment in segments))
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", ws_max_size=1 << 26)
