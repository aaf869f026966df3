// react-speech-recognition and annyang, over the SpeechRecognition that the page has. The buttons start each of them.
import annyang from "annyang";
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import SpeechRecognition, { useSpeechRecognition } from "react-speech-recognition";

function Dictation() {
  const { finalTranscript, interimTranscript, listening } = useSpeechRecognition();
  const start = () => SpeechRecognition.startListening({ continuous: true, language: "en-US" });
  return createElement(
    "div", null,
    createElement("button", { id: "react", onClick: start }),
    createElement("button", { id: "stop", onClick: SpeechRecognition.stopListening }),
    createElement("p", { id: "final" }, finalTranscript),
    createElement("p", { id: "interim" }, interimTranscript),
    createElement("p", { id: "listening" }, String(listening)),
  );
}

createRoot(document.querySelector("#dictation")).render(createElement(Dictation));

document.querySelector("#annyang").addEventListener("click", () => {
  annyang.addCommands({ "it was the best of *what": (what) => (document.querySelector("#command").textContent = what) });
  annyang.start({ autoRestart: true, continuous: false });
});
