// The client of the plain-text protocol's document, under Node, whose WebSocket is that of browsers.
// Added to it: the address, the audio, and a close after the first reply.
const fs = require("fs");

const socket = new WebSocket(process.env.STTD + "/api/v1/ws");

socket.onopen = () => {
  console.log("Connection opened");
  const audioData = new Uint8Array(fs.readFileSync(process.env.AUDIO));
  socket.send(audioData);
};

socket.onmessage = (event) => {
  console.log("Received message: ", event.data);
  socket.close(1000);
};

socket.onclose = (event) => {
  console.log(`Connection closed: ${event.code} ${event.reason}`);
};

socket.onerror = (error) => {
  console.error("WebSocket error:", error);
  process.exitCode = 1;
};
