import { SttdClient, SttdError } from "./sttd.js";

const $ = (id) => document.getElementById(id);
const CUE_S = 6, CUE_CHARACTERS = 84; // the maximum of a subtitle
const found = []; // {text, start, end, words}: what is on the page; times in seconds since the first source began
let base = 0, latest = 0; // where the source of what comes now begins: a session or a file; and where all ends so far
let client = null;
let token = sessionStorage.getItem("sttd.token") ?? ""; // kept only as long as the tab

// What is said

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

const sentence = (text) => (text.endsWith(".") ? text : `${text}.`);

/** The button, and what is said unless something is wrong. */
function render() {
  $("microphone").setAttribute("aria-pressed", String(client?.listening ?? false));
  if ($("status").classList.contains("wrong")) return;
  if (client?.listening) say(client.connected ? "Listening." : "Connecting ...");
  else say("");
}

function show({ text, words = [], start = 0, end = 0 }) {
  const timed = words.map((word) => ({ word: word.word, start: base + word.start, end: base + word.end }));
  const from = timed[0]?.start ?? base + start, to = timed.at(-1)?.end ?? base + end;
  latest = Math.max(latest, to);
  found.push({ text, start: from, end: to, words: timed });
  const line = document.createElement("p");
  line.textContent = text;
  const below = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
  $("text").append(line);
  $("partial").textContent = "";
  if (below) window.scrollTo(0, document.body.scrollHeight);
}

function wrong(error) {
  if (error.code === "token" || error.code === "bad_token") {
    $("ask").hidden = false;
    $("token").focus();
    say(error.code === "token" ? "This sttd asks for a token." : "sttd does not know this token.", true);
  } else {
    say(sentence(error.message), true);
  }
}

// The session

function session() {
  if (client) return client;
  const mine = new SttdClient({ token, words: true, codes: true, warnings: true, language: $("language").value.trim() });
  const on = (name, handler) => mine.addEventListener(name, ({ detail }) => mine === client && handler(detail));
  on("open", () => (base = latest));
  on("ready", () => {
    if ($("status").dataset.lost) say("");
    delete $("status").dataset.lost;
    render();
  });
  on("partial", ({ text }) => ($("partial").textContent = text));
  on("final", show);
  on("level", ({ peak }) => ($("level").value = peak));
  on("warning", ({ message }) => say(message, true));
  on("lost", ({ reason, again_ms }) => {
    const kept = mine.listening ? "; what you say is kept" : "";
    $("partial").textContent = "";
    $("status").dataset.lost = "true";
    say(`${sentence(reason || "The connection is lost")} Trying again in ${Math.ceil(again_ms / 1000)} s${kept}.`, true);
  });
  on("refused", (error) => leave().then(() => wrong(error)));
  on("close", () => leave().then(render));
  on("error", ({ code, message }) => {
    const help = code === "no_model" ? " On the machine of sttd: sttd models pull" : "";
    if (code === "no_model" || code === "microphone") leave(); // the next click begins anew
    say(sentence(message) + help, true);
  });
  client = mine;
  return mine;
}

/** Returns whether it listens. */
async function listen() {
  const current = session();
  say("");
  try {
    const on = current.microphone(); // it is asked for by the click; what is said from now on waits
    render();
    await on;
    await current.connect();
  } catch (error) {
    if (error.code !== "closed" && current === client) {
      await leave();
      wrong(error);
    }
  }
  render();
  return current === client && current.listening;
}

async function rest() {
  const stopped = client?.stopMicrophone();
  render();
  await stopped;
}

async function leave() {
  const old = client;
  client = null;
  $("level").value = 0;
  render();
  await old?.close();
}

$("microphone").addEventListener("click", () => (client?.listening ? rest() : listen()));
$("language").addEventListener("change", async () => {
  const again = client?.listening;
  await leave();
  if (again) listen();
});
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("sttd.token", token);
  $("ask").hidden = true;
  await leave();
  await about();
  listen();
});

// Push to talk: the space bar, unless something has the focus that uses it

const takesSpace = (element) => element.closest?.("input, button:not(#microphone), .button, textarea, select");
let held = false; // from the press of the space bar on, wherever the focus goes
let talking = false;

function release() {
  if (talking) rest();
  talking = false;
}

addEventListener("keydown", (event) => {
  if (event.code !== "Space" || (!held && takesSpace(event.target))) return;
  event.preventDefault();
  if (held || client?.listening) return;
  held = talking = true;
  listen();
});
addEventListener("keyup", (event) => {
  if (event.code !== "Space") return;
  if (held || event.target === $("microphone")) event.preventDefault(); // no click
  held = false;
  release();
});
addEventListener("blur", () => {
  held = false;
  release();
});
addEventListener("visibilitychange", () => document.hidden && release());

// Files

let queue = Promise.resolve(); // one file after the other

function transcribe(files) {
  for (const file of files) queue = queue.then(() => transcribeOne(file));
}

function transcribeOne(file) {
  const form = new FormData();
  form.append("file", file);
  form.append("stream", "true");
  form.append("response_format", "verbose_json");
  form.append("timestamp_granularities[]", "word");
  if ($("language").value.trim()) form.append("language", $("language").value.trim());
  const request = new XMLHttpRequest();
  let read = 0, failed = "";
  const take = () => {
    const end = request.responseText.lastIndexOf("\n\n");
    if (request.status !== 200 || end < read) return;
    for (const line of request.responseText.slice(read, end).split("\n\n")) {
      const event = JSON.parse(line.replace(/^data: /, ""));
      if (event.type === "transcript.text.delta") {
        show({ ...event, text: event.delta.trim() });
        say(`${file.name}: ${clock(event.end).slice(0, 8)} done`);
      }
      if (event.error) failed = event.error.message;
    }
    read = end + 2;
  };
  request.upload.onprogress = ({ loaded, total }) => ($("progress").value = loaded / total);
  request.upload.onload = () => {
    $("progress").removeAttribute("value");
    say(`${file.name} is being transcribed.`);
  };
  request.onprogress = take;
  request.open("POST", new URL("v1/audio/transcriptions", document.baseURI));
  if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
  base = latest;
  $("progress").hidden = false;
  request.send(form);
  return new Promise((done) => {
    request.onloadend = () => {
      take();
      $("progress").hidden = true;
      if (request.status !== 200) failed = message(request) || "sttd does not answer.";
      if (request.status === 401) wrong(new SttdError(token ? "bad_token" : "token", failed));
      else say(failed ? `${file.name}: ${sentence(failed)}` : `${file.name} is done.`, Boolean(failed));
      done();
    };
  });
}

function message(request) {
  try {
    return JSON.parse(request.responseText).error.message;
  } catch {
    return "";
  }
}

$("file").addEventListener("change", () => {
  transcribe([...$("file").files]);
  $("file").value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("drop");
});
addEventListener("dragleave", () => document.body.classList.remove("drop"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("drop");
  transcribe([...event.dataTransfer.files]);
});

// The text elsewhere

const plain = () => found.map(({ text }) => text + "\n").join("");

function clock(seconds) {
  const ms = Math.round(seconds * 1000), two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `${two(ms / 3600000)}:${two(ms / 60000 % 60)}:${two(ms / 1000 % 60)},${String(ms % 1000).padStart(3, "0")}`;
}

// Subtitles: words that fit together into one; an utterance without words is one.
function cues() {
  const cut = [];
  for (const { text, start: from, end: to, words } of found) {
    let cue = null;
    if (!words.length) cut.push({ text, start: from, end: to });
    for (const { word, start, end } of words) {
      if (!cue || end - cue.start > CUE_S || cue.text.length + word.length >= CUE_CHARACTERS) {
        cut.push(cue = { text: word, start, end });
      } else {
        cue.text += ` ${word}`;
        cue.end = end;
      }
    }
  }
  return cut;
}

const srt = () =>
  cues().map(({ text, start, end }, place) => `${place + 1}\n${clock(start)} --> ${clock(end)}\n${text}\n\n`).join("");

function save(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(plain());
  } catch { // a page that is not secure
    getSelection().selectAllChildren($("text"));
    if (!document.execCommand("copy")) return say("The browser does not let this page copy.", true);
    getSelection().removeAllRanges();
  }
  say("Copied.");
});
$("txt").addEventListener("click", () => save(plain(), "speech.txt"));
$("srt").addEventListener("click", () => save(srt(), "speech.srt"));
$("clear").addEventListener("click", () => {
  found.length = 0;
  $("text").replaceChildren();
  $("partial").textContent = "";
});

// Captions

$("captions").addEventListener("click", () => {
  document.body.classList.add("captions");
  document.documentElement.requestFullscreen?.().catch(() => {});
});
const plainly = () => document.body.classList.remove("captions");
addEventListener("fullscreenchange", () => document.fullscreenElement || plainly());
addEventListener("keydown", (event) => event.key === "Escape" && plainly());

// What serves here

let looks = 60;
const LOOK_MS = 2000;

async function about() {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch(new URL("v1/models", document.baseURI), { headers });
    if (!answer.ok) return;
    const models = (await answer.json()).data.filter(({ id }) => id !== "whisper-1"), [model] = models;
    $("engine").textContent = models.map(({ id }) => id).join(", ");
    $("languages").replaceChildren(...model.languages.map((code) => Object.assign(document.createElement("option"), { value: code })));
    if (model.languages.length === 1) $("language").placeholder = model.languages[0];
    if (models.length < 2 && looks-- > 0) setTimeout(about, LOOK_MS); // the model is not loaded yet
  } catch {
    say("sttd does not answer.", true);
  }
}

about();
if (new URLSearchParams(location.search).get("captions") === "1") {
  document.body.classList.add("captions");
  listen();
}
