// SpeechRecognition of the Web Speech API (https://webaudio.github.io/web-speech-api/) over sttd: import the module before
// what needs it, and window.SpeechRecognition and window.webkitSpeechRecognition are sttd's.
import { SttdClient } from "./sttd.js";

const CODES = {
  denied: "not-allowed", insecure: "not-allowed", forbidden: "not-allowed", token: "not-allowed", bad_token: "not-allowed",
  no_microphone: "audio-capture", microphone: "audio-capture", bad_option: "language-not-supported",
};

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

  /** Options of every session: url, token, and those of docs/protocols.md. */
  static settings = {};

  start() {
    if (this.#client) throw new DOMException("recognition has already started", "InvalidStateError");
    const language = (this.lang || document.documentElement.lang).split("-")[0];
    const client = new SttdClient({ language, codes: true, words: true, ...SpeechRecognition.settings });
    this.#client = client;
    this.#results = new List();
    this.#heard = false;
    client.addEventListener("partial", ({ detail }) => detail.text && this.#onText(detail.text, 0.5, false));
    client.addEventListener("final", ({ detail }) => this.#onFinal(detail));
    client.addEventListener("error", ({ detail }) => this.#fail(detail.code, detail.message));
    client.addEventListener("lost", ({ detail }) => this.#fail("network", detail.reason));
    this.#begin(client);
  }

  async #begin(client) {
    try {
      await client.microphone();
      this.#emit("audiostart");
      await client.connect();
      if (client === this.#client) this.#emit("start");
    } catch (error) {
      this.#fail(error.code, error.message);
    }
  }

  #onFinal({ text, words = [] }) {
    // Browsers have an interim result before each final one; react-speech-recognition takes a final alone for a repetition.
    if (this.#results.at(-1)?.isFinal !== false) this.#onText(text, 0.5, false);
    const sum = words.reduce((total, { confidence }) => total + confidence, 0);
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
    const last = this.#results.at(-1);
    if (last && !last.isFinal) this.#results.pop();
    const transcript = (this.#results.length ? " " : "") + text;
    this.#results.push(result(transcript, confidence, isFinal));
    this.#emit("result", { resultIndex: this.#results.length - 1, results: this.#results });
  }

  #fail(code, message) {
    if (!this.#client) return;
    this.#emit("error", { error: CODES[code] ?? "network", message });
    this.abort();
  }

  /** Ends the session; what was said still gives a result. */
  async stop() {
    const client = this.#client;
    if (!client) return;
    await client.close();
    if (client !== this.#client) return;
    this.#client = null;
    this.#emit("audioend");
    this.#emit("end");
  }

  /** Ends the session at once. */
  abort() {
    const client = this.#client;
    if (!client) return;
    this.#client = null;
    client.close();
    this.#emit("end");
  }

  #emit(name, detail = {}) {
    const event = Object.assign(new Event(name), detail);
    this[`on${name}`]?.(event);
    this.dispatchEvent(event);
  }
}

window.SpeechRecognition = window.webkitSpeechRecognition = SpeechRecognition;
