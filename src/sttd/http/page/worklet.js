// Hands over what the microphone hears, in pieces of about 60 ms. At "stop" the rest, then "last".
class Sttd extends AudioWorkletProcessor {
  #piece = new Float32Array(Math.round(sampleRate * 0.06 / 128) * 128);
  #length = 0;
  #stopped = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.#stopped = true;
      if (this.#length) this.port.postMessage(this.#piece.slice(0, this.#length));
      this.port.postMessage("last");
    };
  }

  process([[samples]]) {
    if (samples && !this.#stopped) {
      this.#piece.set(samples, this.#length);
      this.#length += samples.length;
      if (this.#length === this.#piece.length) {
        this.port.postMessage(this.#piece.slice());
        this.#length = 0;
      }
    }
    return !this.#stopped;
  }
}
registerProcessor("sttd", Sttd);
