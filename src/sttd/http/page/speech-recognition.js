// SpeechRecognition of the Web Speech API (https://webaudio.github.io/web-speech-api/) over sttd: import the module before
// what needs it, and window.SpeechRecognition and window.webkitSpeechRecognition are sttd's.
import { SttdClient } from "./sttd.js";

const NO_SPEECH_MS = 10000; // of silence that ends a session which is not continuous
const CODES = {
  denied: "not-allowed", insecure: "not-allowed", forbidden: "not-allowed", token: "not-allowed", bad_token: "not-allowed",
  no_microphone: "audio-capture", microphone: "audio-capture", refused: "language-not-supported",
};
const EVENTS = ["start", "audiostart", "speechstart", "speechend", "audioend", "result", "error", "end"];

class List extends Array {
  item(place) {
    return this[place];
  }
}

const result = (transcript, confidence, isFinal) => Object.assign(List.of({ transcript, confidence }), { isFinal });

export class SpeechRecognition extends EventTarget {
  continuous = false;
  interimResults = false;
  lang = "";
  maxAlternatives = 1;
  #client = null;
  #results = new List();
  #heard = false;
  #stopping = false;
  #timer = 0;

  /** Options of every session: url, token, and those of docs/protocols.md. */
  static settings = {};

  start() {
    if (this.#client) throw new DOMException("recognition has already started", "InvalidStateError");
    const language = (this.lang || document.documentElement.lang).split("-")[0];
    const client = new SttdClient({ language, codes: true, words: true, ...SpeechRecognition.settings });
    this.#client = client;
    this.#results = new List();
    this.#heard = this.#stopping = false;
    const on = (name, handler) =>
      client.addEventListener(name, ({ detail }) => client === this.#client && handler(detail));
    on("partial", ({ text }) => this.#onText(text, 0.5, false));
    on("final", (detail) => this.#onFinal(detail));
    on("error", ({ code, message, fatal }) => (fatal || code === "microphone" || code === "no_model") && this.#fail(code, message));
    on("lost", ({ reason }) => this.#fail("network", reason));
    on("refused", ({ code, message }) => this.#fail(code, message));
    on("close", () => this.#end());
    this.#begin(client);
  }

  async #begin(client) {
    try {
      await client.microphone();
      if (client !== this.#client) return;
      this.#emit("audiostart");
      await client.connect();
      if (client !== this.#client) return;
      this.#emit("start");
      if (!this.continuous) this.#timer = setTimeout(() => this.#onSilence(client), NO_SPEECH_MS);
    } catch (error) {
      if (client === this.#client) this.#fail(error.code, error.message);
    }
  }

  #onSilence(client) {
    if (client !== this.#client || this.#heard || this.#results.length) return;
    this.#emit("error", { error: "no-speech", message: "Nothing was said." });
    this.stop();
  }

  #onFinal({ text, words = [] }) {
    if (this.#stopping && !this.continuous && this.#results.at(-1)?.isFinal) return;
    const sum = words.reduce((total, { confidence }) => total + confidence, 0);
    // Browsers have an interim result before each final one; react-speech-recognition takes a final alone for a repetition.
    if (this.#results.at(-1)?.isFinal !== false) this.#onText(text, 0.5, false);
    this.#onText(text, words.length ? sum / words.length : 1, true);
    this.#heard = false;
    this.#emit("speechend");
    if (!this.continuous) this.stop();
  }

  #onText(text, confidence, isFinal) {
    if (!this.#heard) {
      this.#heard = true;
      this.#emit("speechstart");
    }
    if (!isFinal && !this.interimResults) return;
    if (this.#results.at(-1)?.isFinal === false) this.#results.pop();
    const transcript = (this.#results.length ? " " : "") + text;
    this.#results.push(result(transcript, confidence, isFinal));
    this.#emit("result", { resultIndex: this.#results.length - 1, results: List.from(this.#results) });
  }

  #fail(code, message) {
    this.#emit("error", { error: CODES[code] ?? "network", message });
    this.abort();
  }

  /** Ends the session; what was said still gives a result. */
  async stop() {
    const client = this.#client;
    if (!client) return;
    this.#stopping = true;
    await client.close();
    if (client === this.#client) this.#end();
  }

  /** Ends the session at once. */
  abort() {
    if (!this.#client) return;
    this.#client.abort();
    this.#end();
  }

  #end() {
    clearTimeout(this.#timer);
    this.#client = null;
    this.#emit("audioend");
    this.#emit("end");
  }

  #emit(name, detail = {}) {
    this.dispatchEvent(Object.assign(new Event(name), detail));
  }
}

for (const name of EVENTS) {
  const handlers = new WeakMap();
  Object.defineProperty(SpeechRecognition.prototype, `on${name}`, {
    get() {
      return handlers.get(this) ?? null;
    },
    set(handler) {
      if (!handlers.has(this)) this.addEventListener(name, (event) => handlers.get(this)?.call(this, event));
      handlers.set(this, handler);
    },
  });
}

window.SpeechRecognition = window.webkitSpeechRecognition = SpeechRecognition;
