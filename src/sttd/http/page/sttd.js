// sttd's client for web pages: audio in, text out. Types are in sttd.d.ts; the protocol is docs/protocols/json-events.md.

const RATE = 16000;
const MAX_PENDING_S = 60; // of audio that waits for a connection; older audio is dropped
const FIRST_PAUSE_MS = 500, MAX_PAUSE_MS = 10000; // before another attempt to connect
const CLOSE_MS = 15000; // timeout for the last final

const base64url = (text) =>
  btoa(String.fromCharCode(...new TextEncoder().encode(text))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

/** Returns 16-bit samples of floats from -1 to 1. */
export function toInt16(floats) {
  const samples = new Int16Array(floats.length);
  for (let i = 0; i < floats.length; i++) {
    const value = Math.max(-1, Math.min(1, floats[i]));
    samples[i] = value < 0 ? value * 0x8000 : value * 0x7fff;
  }
  return samples;
}

/** Why something does not work: `code` is for programs, `message` for people. */
export class SttdError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** A connection to sttd, which is made again when it is lost. Events: open, ready, partial, final, error, warning, level, lost, close. */
export class SttdClient extends EventTarget {
  #socket = null;
  #options;
  #wanted = false; // whether there is to be a connection
  #pause = FIRST_PAUSE_MS;
  #timer = 0;
  #pending = []; // audio from before the connection
  #rate = RATE;
  #audio = null; // what the microphone needs: context, stream, node
  #closed = null;

  constructor({ url = new URL("ws/stt", import.meta.url), token = "", ...options } = {}) {
    super();
    this.url = new URL(url, location.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.token = token;
    this.#options = options;
  }

  get connected() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get listening() {
    return this.#audio !== null;
  }

  /** Connects, and keeps connecting until close() is called. Resolves at the first connection. */
  connect() {
    this.#wanted = true;
    return new Promise((resolve, reject) => {
      this.addEventListener("open", () => resolve(), { once: true });
      this.addEventListener("refused", (event) => reject(event.detail), { once: true });
      this.#open();
    });
  }

  #open() {
    clearTimeout(this.#timer);
    const url = new URL(this.url);
    for (const [name, value] of Object.entries(this.#options)) if (value !== "") url.searchParams.set(name, value);
    const protocols = this.token ? ["sttd.v1", `sttd.token.${base64url(this.token)}`] : ["sttd.v1"];
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#pause = FIRST_PAUSE_MS;
      this.#sendFormat();
      for (const piece of this.#pending.splice(0)) socket.send(piece);
      this.#emit("open", {});
    };
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      this.#emit(event.type, event);
    };
    socket.onclose = (event) => this.#onClose(socket, opened, event);
    this.#socket = socket;
  }

  async #onClose(socket, opened, { code, reason }) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (this.#closed || !this.#wanted) {
      this.#closed?.();
      this.#emit("close", { code, reason });
      return;
    }
    const problem = opened ? null : await this.#problem();
    if (problem && problem.code !== "gone" && problem.code !== "busy") {
      this.#wanted = false;
      this.#emit("refused", problem);
      return;
    }
    this.#emit("lost", { code, reason: problem?.message ?? reason, again_ms: this.#pause });
    this.#timer = setTimeout(() => this.#open(), this.#pause);
    this.#pause = Math.min(2 * this.#pause, MAX_PAUSE_MS);
  }

  // A browser does not tell a page why a WebSocket was refused; a plain request is refused for the same reason.
  async #problem() {
    const url = new URL(this.url);
    url.protocol = url.protocol.replace("ws", "http");
    url.pathname = url.pathname.replace(/ws\/stt$/, "v1/audio/transcriptions");
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    try {
      const answer = await fetch(url, { method: "POST", headers });
      const said = (await answer.json().catch(() => null))?.error?.message ?? "";
      if (answer.status === 401) return new SttdError(this.token ? "bad_token" : "token", said);
      if (answer.status === 403) return new SttdError("forbidden", said);
      if (answer.status === 503 || answer.status === 429) return new SttdError("busy", said);
      return new SttdError("refused", "The connection was refused. An option cannot be used: see sttd's log.");
    } catch {
      return new SttdError("gone", "sttd does not answer.");
    }
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #sendFormat() {
    if (this.#rate !== RATE) this.#socket.send(JSON.stringify({ type: "config", sample_rate: this.#rate }));
  }

  /** Changes options of the session, as in docs/protocols.md. */
  configure(options) {
    Object.assign(this.#options, options);
    if (this.connected) this.#socket.send(JSON.stringify({ type: "config", ...options }));
  }

  /** Sends audio: an Int16Array of mono samples. What is sent without a connection waits for it. */
  send(samples) {
    if (this.connected) {
      this.#socket.send(samples);
      return;
    }
    this.#pending.push(samples);
    let length = this.#pending.reduce((sum, piece) => sum + piece.length, 0);
    while (length > MAX_PENDING_S * this.#rate) length -= this.#pending.shift().length;
  }

  /** Asks for the final of what was said so far. */
  flush() {
    if (this.connected) this.#socket.send('{"type": "flush"}');
  }

  /** Begins to send what the microphone hears. Throws SttdError if there is none, or if it may not be used. */
  async microphone({ deviceId } = {}) {
    if (this.#audio) return;
    if (!navigator.mediaDevices?.getUserMedia) {
      const how = "Open the page as http://localhost on the machine of sttd, or over https (TLS: docs/operations.md).";
      throw new SttdError("insecure", `The browser gives no microphone to this page, since it is not secure. ${how}`);
    }
    const wanted = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true, deviceId };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    } catch (error) {
      if (error.name === "NotAllowedError") {
        throw new SttdError("denied", "The browser was told not to give the microphone to this page; its settings for the page change that.");
      }
      if (error.name === "NotFoundError") throw new SttdError("no_microphone", "There is no microphone.");
      throw new SttdError("microphone", `The microphone cannot be used: ${error.message}`);
    }
    this.#audio = { stream, context: null };
    try {
      await this.#process(stream);
    } catch (error) {
      this.stopMicrophone();
      throw new SttdError("microphone", `The microphone cannot be used: ${error.message}`);
    }
  }

  async #process(stream) {
    let context = new AudioContext({ sampleRate: RATE });
    let source;
    try {
      source = context.createMediaStreamSource(stream);
    } catch { // Firefox does not resample: sttd does
      await context.close();
      context = new AudioContext();
      source = context.createMediaStreamSource(stream);
    }
    this.#audio.context = context;
    if (context.sampleRate !== this.#rate) {
      this.#rate = context.sampleRate;
      if (this.connected) this.#sendFormat();
    }
    const take = (floats) => {
      if (this.#audio?.context !== context) return;
      const samples = toInt16(floats);
      this.#emit("level", { peak: floats.reduce((most, value) => Math.max(most, Math.abs(value)), 0) });
      this.send(samples);
    };
    let node;
    if (context.audioWorklet) {
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
      node = new AudioWorkletNode(context, "sttd", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      node.port.onmessage = ({ data }) => take(data);
    } else {
      node = context.createScriptProcessor(4096, 1, 1);
      node.onaudioprocess = ({ inputBuffer }) => take(inputBuffer.getChannelData(0));
      node.connect(context.destination);
    }
    source.connect(node);
    await context.resume();
  }

  /** Stops the microphone, and asks for the final of what was said. */
  stopMicrophone() {
    const audio = this.#audio;
    if (!audio) return;
    this.#audio = null;
    audio.stream.getTracks().forEach((track) => track.stop());
    audio.context?.close();
    this.#emit("level", { peak: 0 });
    this.flush();
  }

  /** Ends the session. Resolves when the last final has come. */
  close() {
    this.stopMicrophone();
    this.#wanted = false;
    clearTimeout(this.#timer);
    if (!this.connected) {
      this.#socket?.close();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#closed = resolve;
      this.#socket.send('{"type": "eof"}');
      setTimeout(resolve, CLOSE_MS);
    }).finally(() => (this.#closed = null));
  }
}
