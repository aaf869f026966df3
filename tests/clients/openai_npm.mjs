// OpenAI's own client for JavaScript: the text at once, then as a stream of events. Arguments: base URL, file.
import fs from "node:fs";
import OpenAI from "openai";

const [baseURL, path] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
const request = () => ({ file: fs.createReadStream(path), model: "whisper-1" });
const { text } = await client.audio.transcriptions.create(request());
let deltas = "";
for await (const event of await client.audio.transcriptions.create({ ...request(), stream: true })) {
  if (event.type === "transcript.text.delta") deltas += event.delta;
}
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(JSON.stringify({ texts: [text, deltas], models }));
