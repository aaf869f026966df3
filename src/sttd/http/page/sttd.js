// sttd's client for web pages: audio in, text out. Types are in sttd.d.ts; the protocol is docs/protocols/json-events.md.

const RATE = 16000;
const MAX_PENDING_S = 60; // of audio that waits for a connection; older audio is dropped
const MAX_UNSENT_S = 5; // of audio that the browser could not send; then the connection counts as lost
const FIRST_PAUSE_MS = 500, MAX_PAUSE_MS = 10000; // before another attempt to connect
const CLOSE_MS = 15000; // timeout for the last final
const LAST_PIECE_MS = 200; // timeout for what the microphone has not handed over
const FOR_GOOD = new Set([1008, 4429]); // close codes: an option cannot be used, the quota is used up
const IDLE = 4408;

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

const closed = () => new SttdError("closed", "It was ended before it had begun.");

/** A microphone that is used once: start, then stop. stop() may come at any time. */
class Microphone {
  #stopped = false;
  #stream = null;
  #context = null;
  #node = null;

  /** `take(floats, rate)` gets what is heard; `gone()` is called if the microphone is taken away. */
  constructor(take, gone) {
    this.take = take;
    this.gone = gone;
  }

  async start(deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) {
      const how = "Open the page as http://localhost on the machine of sttd, or over https (TLS: docs/operations.md).";
      throw new SttdError("insecure", `The browser gives no microphone to this page, since it is not secure. ${how}`);
    }
    try {
      await this.#begin({ channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true, deviceId });
    } catch (error) {
      this.#release();
      if (this.#stopped) throw closed();
      if (error.name === "NotAllowedError") {
        throw new SttdError("denied", "The browser blocks the microphone for this page. Allow it in the browser's settings for this site.");
      }
      if (error.name === "NotFoundError") throw new SttdError("no_microphone", "There is no microphone.");
      throw new SttdError("microphone", `The microphone cannot be used: ${error.message}`);
    }
  }

  async #begin(wanted) {
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    this.#goOn();
    for (const track of this.#stream.getTracks()) track.onended = () => this.#stopped || this.gone();
    let source;
    this.#context = new AudioContext({ sampleRate: RATE });
    try {
      source = this.#context.createMediaStreamSource(this.#stream);
    } catch { // Firefox does not resample: sttd does
      this.#context.close();
      this.#context = new AudioContext();
      source = this.#context.createMediaStreamSource(this.#stream);
    }
    const context = this.#context;
    if (context.audioWorklet) {
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
      this.#goOn();
      this.#node = new AudioWorkletNode(context, "sttd", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      this.#node.port.onmessage = ({ data }) => this.take(data, context.sampleRate);
    } else {
      this.#node = context.createScriptProcessor(4096, 1, 1);
      this.#node.onaudioprocess = ({ inputBuffer }) => this.take(inputBuffer.getChannelData(0), context.sampleRate);
      this.#node.connect(context.destination);
    }
    source.connect(this.#node);
    await context.resume();
    this.#goOn();
  }

  #goOn() {
    if (this.#stopped) throw closed();
  }

  /** Resolves when all that was heard has been handed over. */
  async stop() {
    this.#stopped = true;
    const { port } = this.#node ?? {};
    if (port && this.#context.state === "running") {
      await new Promise((done) => {
        setTimeout(done, LAST_PIECE_MS);
        port.onmessage = ({ data }) => (data === "last" ? done() : this.take(data, this.#context.sampleRate));
        port.postMessage("stop");
      });
    }
    this.#release();
  }

  #release() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }
}

/**
 * A session, whose connection is made again when it is lost.
 * Events: open, ready, partial, final, error, warning, level, lost, refused, close.
 */
export class SttdClient extends EventTarget {
  #options;
  #connecting = null; // from connect() to close(): {promise, resolve, reject}
  #socket = null;
  #closing = null;
  #onClosed = null;
  #pause = FIRST_PAUSE_MS;
  #timer = 0;
  #pending = []; // messages that wait for a connection
  #sent = []; // the last pieces of audio that were given to the browser
  #rate = RATE;
  #microphone = null;

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

  /** Whether the microphone is on, or asked for. */
  get listening() {
    return this.#microphone !== null;
  }

  /** Connects, and goes on connecting until close(). Resolves at the first connection. */
  async connect() {
    if (this.#closing) await this.#closing;
    if (!this.#connecting) {
      const wish = {};
      wish.promise = new Promise((resolve, reject) => Object.assign(wish, { resolve, reject }));
      wish.promise.catch(() => {}); // also told by the event `refused`
      this.#connecting = wish;
      this.#pause = FIRST_PAUSE_MS;
      this.#open();
    }
    return this.#connecting.promise;
  }

  #open() {
    const url = new URL(this.url);
    for (const [name, value] of Object.entries(this.#options)) if (value !== "") url.searchParams.set(name, value);
    const protocols = this.token ? ["sttd.v1", `sttd.token.${base64url(this.token)}`] : ["sttd.v1"];
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    let opened = false;
    socket.onopen = () => {
      if (socket !== this.#socket) return socket.close();
      opened = true;
      if (this.#rate !== RATE) this.#sendFormat();
      for (const message of this.#pending.splice(0)) socket.send(message);
      this.#connecting?.resolve();
      this.#emit("open", {});
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      const event = JSON.parse(data);
      if (event.type === "ready") this.#pause = FIRST_PAUSE_MS;
      this.#emit(event.type, event);
    };
    socket.onclose = (event) => {
      if (socket !== this.#socket) return;
      this.#socket = null;
      this.#onClose(opened, event);
    };
    this.#socket = socket;
  }

  async #onClose(opened, { code, reason }) {
    const wish = this.#connecting;
    if (!wish || code === IDLE) {
      this.#connecting = null;
      this.#onClosed?.();
      this.#emit("close", { code, reason });
      return;
    }
    if (FOR_GOOD.has(code)) {
      this.#giveUp(new SttdError("refused", reason || "sttd has ended the session."));
      return;
    }
    const problem = opened ? null : await this.#problem();
    if (wish !== this.#connecting || this.#socket) return;
    if (["token", "bad_token", "forbidden"].includes(problem?.code)) this.#giveUp(problem);
    else this.#tryAgain({ code, reason: problem?.message ?? reason });
  }

  #tryAgain(how) {
    const again_ms = this.#pause;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), again_ms);
    this.#pause = Math.min(2 * this.#pause, MAX_PAUSE_MS);
    this.#emit("lost", { ...how, again_ms });
  }

  #giveUp(problem) {
    const wish = this.#connecting;
    this.#connecting = null;
    wish.reject(problem);
    this.#emit("refused", problem);
  }

  // A browser does not tell a page why a WebSocket was refused; a plain request is refused for the same reason.
  async #problem() {
    const at = (path) => {
      const url = new URL(this.url);
      url.protocol = url.protocol.replace("ws", "http");
      url.pathname = url.pathname.replace(/ws\/stt$/, path);
      return url;
    };
    const headers = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    try {
      const answer = await fetch(at("v1/audio/transcriptions"), { method: "POST", headers });
      const said = (await answer.json().catch(() => null))?.error?.message ?? "";
      if (answer.status === 401) return new SttdError(this.token ? "bad_token" : "token", said || "sttd asks for a token.");
      if (answer.status === 403) return new SttdError("forbidden", said);
      if (said && answer.status >= 429) return new SttdError("busy", said);
    } catch {
      // An answer that this page may not read: it is a page of another machine, which is not allowed.
      const there = await fetch(at("livez"), { mode: "no-cors" }).catch(() => null);
      if (there) return new SttdError("forbidden", `sttd answers, but not this page: access.origins has to name ${location.origin}.`);
    }
    return new SttdError("gone", "sttd does not answer.");
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #sendFormat() {
    this.#socket.send(JSON.stringify({ type: "config", sample_rate: this.#rate }));
  }

  /** Changes options of the session, as in docs/protocols.md. */
  configure(options) {
    Object.assign(this.#options, options);
    if (this.connected) this.#socket.send(JSON.stringify({ type: "config", ...options }));
  }

  /** Sends audio: an Int16Array of mono samples. What is sent without a connection waits for it. */
  send(samples) {
    if (this.connected && this.#socket.bufferedAmount > MAX_UNSENT_S * this.#rate * 2) this.#drop();
    if (!this.connected) {
      this.#wait(samples);
      return;
    }
    this.#socket.send(samples);
    this.#sent.push(samples);
    while (this.#sent.length > 2 && length(this.#sent) > 2 * MAX_UNSENT_S * this.#rate) this.#sent.shift();
  }

  // The network is gone without a word. What the browser has not sent waits for the next connection.
  #drop() {
    const socket = this.#socket;
    let unsent = socket.bufferedAmount / 2;
    const pieces = [];
    while (unsent > 0 && this.#sent.length) {
      pieces.unshift(this.#sent.pop());
      unsent -= pieces[0].length;
    }
    this.#sent = [];
    this.#socket = null;
    socket.close();
    for (const piece of pieces) this.#wait(piece);
    if (this.#connecting) this.#tryAgain({ code: 1006, reason: "The connection is stuck." });
  }

  #wait(message) {
    this.#pending.push(message);
    while (length(this.#pending) > MAX_PENDING_S * this.#rate) this.#pending.shift();
  }

  /** Asks for the final of what was said so far. */
  flush() {
    const message = '{"type": "flush"}';
    if (this.connected) this.#socket.send(message);
    else if (this.#pending.length) this.#wait(message);
  }

  /**
   * Begins to send what the microphone hears. Throws SttdError if there is none, if it may not be used, or if it is
   * stopped before it is on.
   */
  microphone({ deviceId } = {}) {
    if (!this.#microphone) {
      const gone = () => {
        this.stopMicrophone();
        this.#emit("error", { type: "error", code: "microphone", message: "The microphone is gone." });
      };
      const microphone = new Microphone((floats, rate) => this.#take(floats, rate), gone);
      this.#microphone = microphone;
      microphone.on = microphone.start(deviceId).catch((error) => {
        if (microphone === this.#microphone) this.#microphone = null;
        throw error;
      });
    }
    return this.#microphone.on;
  }

  #take(floats, rate) {
    if (rate !== this.#rate) {
      this.#rate = rate;
      if (this.connected) this.#sendFormat();
    }
    this.#emit("level", { peak: floats.reduce((most, value) => Math.max(most, Math.abs(value)), 0) });
    this.send(toInt16(floats));
  }

  /** Stops the microphone, and asks for the final of what was said. */
  async stopMicrophone() {
    const microphone = this.#microphone;
    if (!microphone) return;
    this.#microphone = null;
    await microphone.stop();
    this.#emit("level", { peak: 0 });
    this.flush();
  }

  /** Ends the session. Resolves when the last final has come; audio that still waits for a connection is dropped. */
  close() {
    this.#closing ??= this.#close().finally(() => (this.#closing = null));
    return this.#closing;
  }

  async #close() {
    await this.stopMicrophone();
    this.#forget();
    const socket = this.#socket;
    if (!this.connected) return this.#leave();
    socket.send('{"type": "eof"}');
    let timer;
    await new Promise((resolve) => {
      this.#onClosed = resolve;
      timer = setTimeout(resolve, CLOSE_MS);
    });
    clearTimeout(timer);
    this.#onClosed = null;
    if (socket === this.#socket) this.#leave();
  }

  /** Ends the session at once; nothing more comes of it. */
  abort() {
    this.#forget();
    this.#leave();
    const microphone = this.#microphone;
    this.#microphone = null;
    if (!microphone) return;
    microphone.take = () => {};
    microphone.stop();
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#connecting?.reject(closed());
    this.#connecting = null;
    this.#pending = [];
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#onClosed?.();
  }
}

/** Samples in messages; control messages have none. */
const length = (messages) => messages.reduce((sum, message) => sum + (typeof message === "string" ? 0 : message.length), 0);
