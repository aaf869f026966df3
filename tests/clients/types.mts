// A program in TypeScript that uses all of sttd.js: its types are right if it compiles.
import { SttdClient, SttdError, toInt16 } from "./sttd.js";

const client = new SttdClient({ url: new URL("ws://localhost:3000/ws/stt"), token: "", language: "en", words: true });
client.addEventListener("final", ({ detail }) => console.log(detail.text, detail.words?.[0]?.start.toFixed(1)));
client.addEventListener("refused", ({ detail }) => console.log(detail.code satisfies SttdError["code"]));
client.addEventListener("anything", () => {}, { once: true });
await client.microphone({ deviceId: "x" });
await client.connect();
client.send(toInt16([0, 0.5]));
client.configure({ language: "de" });
await client.close();
