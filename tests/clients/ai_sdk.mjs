// The packages ai and @ai-sdk/openai. Arguments: base URL, file.
import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import * as ai from "ai";

const [baseURL, path] = process.argv.slice(2);
const provider = createOpenAI({ baseURL, apiKey: "unused" });
const found = await (ai.transcribe ?? ai.experimental_transcribe)({ model: provider.transcription("whisper-1"), audio: fs.readFileSync(path) });
console.log(JSON.stringify({ texts: [found.text], seconds: found.durationInSeconds, segments: found.segments.length }));
