// Hands over what the microphone hears, in pieces of about 60 ms.
class Sttd extends AudioWorkletProcessor {
  #piece = new Float32Array(Math.round(sampleRate * 0.06 / 128) * 128);
  #length = 0;

  process([[samples]]) {
    if (samples) {
      this.#piece.set(samples, this.#length);
      this.#length += samples.length;
      if (this.#length === this.#piece.length) {
        this.port.postMessage(this.#piece.slice());
        this.#length = 0;
      }
    }
    return true;
  }
}
registerProcessor("sttd", Sttd);
