// The client of the JSON protocol's document, under Node, whose WebSocket is that of browsers.
// Added to it: the address, the microphone (a file in pieces of 4096 samples, in real time), and an end.
const fs = require("fs");

const ws = new WebSocket(process.env.STTD + "/ws/stt");
ws.binaryType = "arraybuffer";

const setPartialText = (text) => console.log("partial: " + text);
const appendFinalText = (text) => console.log("final: " + text);

ws.onmessage = (event) => {
  const data = JSON.parse(event.data);
  switch (data.type) {
    case "ready":
      console.log("STT ready");
      startMicrophone();
      break;
    case "partial":
      // Update UI with intermediate text
      setPartialText(data.text);
      break;
    case "final":
      // Commit finalized text
      appendFinalText(data.text);
      break;
    case "error":
      console.error("STT error:", data.message);
      process.exitCode = 1;
      break;
  }
};

const processor = {};
processor.onaudioprocess = (event) => {
  const float32Data = event.inputBuffer.getChannelData(0);
  const int16Data = new Int16Array(float32Data.length);
  for (let i = 0; i < float32Data.length; i++) {
    const s = Math.max(-1, Math.min(1, float32Data[i]));
    int16Data[i] = s < 0 ? s * 0x8000 : s * 0x7fff;
  }
  ws.send(int16Data.buffer);
};

function startMicrophone() {
  const bytes = fs.readFileSync(process.env.AUDIO);
  const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  let at = 0;
  const timer = setInterval(() => {
    const piece = samples.subarray(at, at + 4096);
    at += 4096;
    if (piece.length === 0) {
      clearInterval(timer);
      ws.send(JSON.stringify({ type: "eof" }));
      return;
    }
    processor.onaudioprocess({ inputBuffer: { getChannelData: () => piece } });
  }, 256);
}
