// sttd.js and speech-recognition.js with a network and a microphone that do what a test says. Run by tests/e2e/test_page.py.
// What a browser and a daemon do of themselves is in test_page.py beside this file.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

const sockets = [];

class FakeSocket {
  static OPEN = 1;
  readyState = 0;
  bufferedAmount = 0;
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    sockets.push(this);
  }
  send(message) {
    assert.equal(this.readyState, 1, "a browser throws");
    this.sent.push(message);
  }
  close() {
    if (this.readyState === 3) return;
    this.readyState = 3;
    queueMicrotask(() => this.onclose({ code: 1005, reason: "" }));
  }
  opened() {
    this.readyState = 1;
    this.onopen();
    return this;
  }
  gone(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
  says(event) {
    this.onmessage({ data: JSON.stringify(event) });
  }
}

const tracks = [];
let allow = []; // the browser's questions for the microphone, as functions that answer yes
let answers = async () => { throw new TypeError("no network"); };

class FakeContext {
  sampleRate = 16000;
  state = "running";
  createMediaStreamSource() {
    return { connect() {} };
  }
  createScriptProcessor() {
    return { connect() {} };
  }
  async resume() {
    if (this.state === "closed") throw new DOMException("closed", "InvalidStateError");
  }
  async close() {
    this.state = "closed";
  }
}

function getUserMedia() {
  return new Promise((resolve) => allow.push(() => {
    const track = { live: true, stop() { this.live = false; } };
    tracks.push(track);
    resolve({ getTracks: () => [track] });
  }));
}

Object.assign(globalThis, {
  window: globalThis, location: new URL("http://localhost:8000/"), document: { documentElement: { lang: "en" } },
  WebSocket: FakeSocket, AudioContext: FakeContext, fetch: (...request) => answers(...request),
});
Object.defineProperty(globalThis, "navigator", { value: { mediaDevices: { getUserMedia } }, configurable: true });

const page = new URL("../../src/sttd/http/page/", import.meta.url);
const { SttdClient } = await import(new URL("sttd.js", page));
const { SpeechRecognition } = await import(new URL("speech-recognition.js", page));

const settled = async () => { for (let i = 0; i < 30; i++) await Promise.resolve(); };
const last = () => sockets.at(-1);
const events = (target, ...names) => {
  const seen = [];
  for (const name of names) target.addEventListener(name, (event) => seen.push([name, event.detail]));
  return seen;
};
const names = (seen) => seen.map(([name]) => name);

async function connected(settings) {
  const client = new SttdClient(settings);
  const wish = client.connect();
  await settled();
  last().opened();
  await wish;
  return client;
}

async function listening(client) {
  const on = client.microphone();
  allow.shift()();
  await on;
}

test("a microphone that is stopped while the browser still asks is never on", async () => {
  for (const end of ["stopMicrophone", "close", "abort"]) {
    const client = new SttdClient();
    const on = client.microphone();
    client[end]();
    allow.shift()();
    await assert.rejects(on, { code: "closed" });
    assert.equal(tracks.at(-1).live, false);
    assert.equal(client.listening, false);
  }
});

test("two calls for the microphone are one", async () => {
  const client = new SttdClient();
  const both = [client.microphone(), client.microphone()];
  assert.equal(allow.length, 1);
  allow.shift()();
  await Promise.all(both);
  await client.stopMicrophone();
  assert.ok(tracks.every((track) => !track.live));
});

test("nothing is connected again after close, whenever it comes", async (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const inListener = await connected();
  inListener.addEventListener("lost", () => inListener.close());
  last().gone();
  await settled();
  let release;
  answers = () => new Promise((_, reject) => (release = () => reject(new TypeError())));
  const inProbe = new SttdClient();
  const wish = inProbe.connect();
  await settled();
  last().gone();
  await settled();
  inProbe.close();
  release();
  await assert.rejects(wish, { code: "closed" });
  const before = sockets.length;
  mock.timers.tick(60000);
  await settled();
  assert.equal(sockets.length, before);
  answers = async () => { throw new TypeError("no network"); };
});

test("connect is one connection, however often it is called", async () => {
  const client = new SttdClient();
  const before = sockets.length;
  const both = [client.connect(), client.connect()];
  await settled();
  assert.equal(sockets.length, before + 1);
  last().opened();
  await Promise.all(both);
  await client.connect();
  assert.equal(sockets.length, before + 1);
  client.abort();
});

test("close sends what is left, and resolves when sttd has closed", async () => {
  const client = await connected();
  const seen = events(client, "final", "close");
  await listening(client);
  const done = client.close();
  assert.equal(client.close(), done);
  await settled();
  assert.deepEqual(last().sent, ['{"type": "flush"}', '{"type": "eof"}']);
  last().says({ type: "final", text: "bye" });
  last().gone(1000);
  await done;
  assert.deepEqual(names(seen), ["final", "close"]);
  assert.equal(client.connected, false);
});

test("an option that cannot be used ends the attempts; a stopped daemon does not, with longer and longer pauses", async (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const wrong = await connected({ language: "xx" });
  const told = events(wrong, "refused", "lost");
  last().gone(1008, "language: xx");
  await settled();
  assert.deepEqual(names(told), ["refused"]);
  assert.equal(told[0][1].message, "language: xx");
  const client = await connected();
  const seen = events(client, "lost");
  for (const pause of [500, 1000, 2000]) {
    last().gone(1001);
    await settled();
    mock.timers.tick(pause);
    last().opened();
  }
  assert.deepEqual(seen.map(([, { again_ms }]) => again_ms), [500, 1000, 2000]);
  last().says({ type: "ready" });
  last().gone(1001);
  await settled();
  assert.equal(seen.at(-1)[1].again_ms, 500);
  client.abort();
});

test("what a plain request is told decides whether there is another attempt", async (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const cases = [[502, "lost"], [400, "lost"], [503, "lost"], [401, "refused", "token"], [403, "refused", "forbidden"]];
  for (const [status, name, code] of cases) {
    answers = async () => ({ status, json: async () => ({ error: { message: "a reason" } }) });
    const client = new SttdClient();
    const seen = events(client, "lost", "refused");
    client.connect().catch(() => {});
    await settled();
    last().gone();
    await settled();
    assert.deepEqual(names(seen), [name], status);
    if (code) assert.equal(seen[0][1].code, code);
    client.abort();
  }
  answers = async (url, { mode }) => { if (mode !== "no-cors") throw new TypeError("CORS"); return {}; };
  const client = new SttdClient();
  const refused = client.connect();
  await settled();
  last().gone();
  await assert.rejects(refused, { code: "forbidden" });
  answers = async () => { throw new TypeError("no network"); };
});

test("what is said without a connection waits for it; a flush too", async (t) => {
  mock.timers.enable({ apis: ["setTimeout"] });
  t.after(() => mock.timers.reset());
  const client = await connected();
  last().gone();
  await settled();
  const piece = Int16Array.of(1, 2, 3);
  client.send(piece);
  client.flush();
  mock.timers.tick(500);
  last().opened();
  assert.deepEqual(last().sent, [piece, '{"type": "flush"}']);
  for (let i = 0; i < 200; i++) client.send(new Int16Array(8000));
  const stuck = last();
  stuck.bufferedAmount = 7 * 32000; // the network is gone without a word
  client.send(piece);
  assert.equal(stuck.readyState, 3);
  mock.timers.tick(1000);
  last().opened();
  const samples = last().sent.reduce((sum, message) => sum + message.length, 0);
  assert.ok(samples >= 7 * 16000 && samples < 8 * 16000, String(samples));
  assert.deepEqual(last().sent.at(-1), piece);
  client.abort();
});

// SpeechRecognition

async function recognition(settings = {}) {
  const found = Object.assign(new SpeechRecognition(), settings);
  const seen = [];
  for (const name of ["start", "result", "error", "end", "audioend"]) {
    found[`on${name}`] = (event) => {
      assert.equal(event.target, found);
      seen.push(name === "result" ? event.results.at(-1)[0].transcript : event.error ?? name);
    };
  }
  found.start();
  allow.shift()();
  await settled();
  last().opened();
  await settled();
  return [found, seen];
}

const final = (text) => ({ type: "final", text, words: [{ word: text, start: 0, end: 1, confidence: 0.5 }] });

test("a session that is not continuous ends with its first final", async () => {
  const [, seen] = await recognition();
  last().says(final("hello"));
  await settled();
  last().says(final("again"));
  last().gone(1000);
  await settled();
  assert.deepEqual(seen, ["start", "hello", "audioend", "end"]);
  assert.equal(tracks.at(-1).live, false);
});

test("interim results, one that is taken back, and results that do not change under the page", async () => {
  const [found, seen] = await recognition({ continuous: true, interimResults: true });
  const kept = [];
  found.addEventListener("result", ({ results }) => kept.push(results));
  last().says({ type: "partial", text: "he" });
  last().says({ type: "partial", text: "" });
  last().says({ type: "partial", text: "hello" });
  last().says(final("hello"));
  last().says(final("again")); // without a partial: an interim result comes first all the same
  assert.deepEqual(seen, ["start", "he", "", "hello", "hello", " again", " again"]);
  assert.deepEqual(kept.map((results) => results.length), [1, 1, 1, 1, 2, 2]);
  found.abort();
  assert.deepEqual(seen.slice(-2), ["audioend", "end"]);
});

test("after abort nothing of the old session reaches the new one", async () => {
  const [found, seen] = await recognition();
  const old = last();
  found.abort();
  found.start();
  allow.shift()();
  await settled();
  last().opened();
  await settled();
  old.onmessage({ data: JSON.stringify(final("old")) });
  await settled();
  assert.deepEqual(seen, ["start", "audioend", "end", "start"]);
  assert.deepEqual(last().sent, []);
  found.abort();
});

test("a microphone that is refused, a network that fails and a handler that throws end the session", async () => {
  const [, seen] = await recognition({ continuous: true });
  const before = sockets.length;
  last().gone();
  await settled();
  assert.deepEqual(seen, ["start", "network", "audioend", "end"]);
  assert.equal(sockets.length, before);
  const aborted = new SpeechRecognition();
  aborted.start();
  aborted.abort();
  allow.shift()();
  await settled();
  assert.equal(tracks.at(-1).live, false);
  assert.equal(sockets.length, before);
});
