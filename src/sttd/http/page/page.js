import { SttdClient, SttdError } from "./sttd.js";

const $ = (id) => document.getElementById(id);
const CUE_S = 6, CUE_CHARACTERS = 84; // the maximum of a subtitle
const found = []; // {text, words}: what is on the page; times in seconds since the session or the file began
let client = null;
let token = sessionStorage.getItem("sttd.token") ?? ""; // kept only as long as the tab

// What is said

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

const sentence = (text) => (text.endsWith(".") ? text : `${text}.`);

function show(utterance) {
  found.push(utterance);
  const line = document.createElement("p");
  line.textContent = utterance.text;
  const below = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
  $("text").append(line);
  $("partial").textContent = "";
  if (below) window.scrollTo(0, document.body.scrollHeight);
}

function wrong(error) {
  $("microphone").setAttribute("aria-pressed", "false");
  const code = error instanceof SttdError ? error.code : "";
  if (code === "token" || code === "bad_token") {
    $("ask").hidden = false;
    $("token").focus();
    say(code === "token" ? "This sttd asks for a token." : "sttd does not know this token.", true);
  } else {
    say(error.message, true);
  }
}

// The session

function session() {
  if (client) return client;
  client = new SttdClient({ token, words: true, codes: true, warnings: true, language: $("language").value.trim() });
  client.addEventListener("ready", () => say(client.listening ? "Listening." : "Ready."));
  client.addEventListener("partial", ({ detail }) => ($("partial").textContent = detail.text));
  client.addEventListener("final", ({ detail: { text, words } }) => show({ text, words }));
  client.addEventListener("level", ({ detail }) => ($("level").value = detail.peak));
  client.addEventListener("warning", ({ detail }) => say(detail.message, true));
  client.addEventListener("lost", ({ detail }) =>
    say(`${sentence(detail.reason || "The connection is lost")} Trying again in ${Math.ceil(detail.again_ms / 1000)} s; what you say is kept.`, true));
  client.addEventListener("error", ({ detail }) => {
    const help = detail.code === "no_model" ? " On the machine of sttd: sttd models pull" : "";
    say(sentence(detail.message) + help, true);
  });
  return client;
}

async function listen() {
  const current = session();
  say("Connecting ...");
  $("microphone").setAttribute("aria-pressed", "true");
  try {
    await current.microphone(); // it is first asked for by the click; what is said meanwhile waits
    if (!current.connected) await current.connect();
    say("Listening.");
  } catch (error) {
    await leave();
    wrong(error);
  }
}

function rest() {
  client?.stopMicrophone();
  $("microphone").setAttribute("aria-pressed", "false");
  say("");
}

async function leave() {
  const old = client;
  client = null;
  $("microphone").setAttribute("aria-pressed", "false");
  await old?.close();
}

$("microphone").addEventListener("click", () => (client?.listening ? rest() : listen()));
$("language").addEventListener("change", () => leave());
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("sttd.token", token);
  $("ask").hidden = true;
  leave().then(about).then(listen);
});

// Push to talk: the space bar, unless something is focused that uses it

const takesSpace = (element) => element.closest("input, button, .button, textarea, select");
let talking = false;
addEventListener("keydown", (event) => {
  if (event.code !== "Space" || takesSpace(event.target)) return;
  event.preventDefault();
  if (event.repeat || talking || client?.listening) return;
  talking = true;
  listen().then(() => talking || rest());
});
addEventListener("keyup", (event) => {
  if (event.code !== "Space" || !talking) return;
  talking = false;
  rest();
});

// Files

function transcribe(file) {
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
        show({ text: event.delta.trim(), words: event.words });
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
  request.onloadend = () => {
    take();
    $("progress").hidden = true;
    if (request.status === 401) return wrong(new SttdError(token ? "bad_token" : "token", ""));
    if (request.status !== 200) failed = message(request) || "sttd does not answer.";
    say(failed ? `${file.name}: ${failed}` : `${file.name} is done.`, Boolean(failed));
  };
  request.open("POST", new URL("v1/audio/transcriptions", document.baseURI));
  if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
  $("progress").hidden = false;
  request.send(form);
}

function message(request) {
  try {
    return JSON.parse(request.responseText).error.message;
  } catch {
    return "";
  }
}

$("file").addEventListener("change", () => {
  for (const file of $("file").files) transcribe(file);
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
  for (const file of event.dataTransfer.files) transcribe(file);
});

// The text elsewhere

const plain = () => found.map(({ text }) => text + "\n").join("");

function clock(seconds) {
  const ms = Math.round(seconds * 1000), two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `${two(ms / 3600000)}:${two(ms / 60000 % 60)}:${two(ms / 1000 % 60)},${String(ms % 1000).padStart(3, "0")}`;
}

// Subtitles: words that fit together into one.
function cues() {
  const cut = [];
  for (const { words } of found) {
    let cue = null;
    for (const { word, start, end } of words ?? []) {
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
  await navigator.clipboard.writeText(plain());
  say("Copied.");
});
$("txt").addEventListener("click", () => save(plain(), "speech.txt"));
$("srt").addEventListener("click", () => save(srt(), "speech.srt"));
$("clear").addEventListener("click", () => {
  found.length = 0;
  $("text").replaceChildren();
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

async function about() {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch(new URL("v1/models", document.baseURI), { headers });
    if (!answer.ok) return;
    const models = (await answer.json()).data.filter(({ id }) => id !== "whisper-1"), [model] = models;
    $("engine").textContent = models.map(({ id }) => id).join(", ");
    $("languages").replaceChildren(...model.languages.map((code) => Object.assign(document.createElement("option"), { value: code })));
    if (model.languages.length === 1) $("language").placeholder = model.languages[0];
  } catch {
    say("sttd does not answer.", true);
  }
}

about();
if (new URLSearchParams(location.search).get("captions") === "1") {
  document.body.classList.add("captions");
  listen();
}
