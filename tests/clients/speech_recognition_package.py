"""The package SpeechRecognition. Arguments: base URL, file."""

# The package is not installed where types are checked.
# mypy: ignore-errors

import json
import os
import sys

import speech_recognition

os.environ |= {"OPENAI_BASE_URL": sys.argv[1], "OPENAI_API_KEY": "unused"}
recognizer = speech_recognition.Recognizer()
with speech_recognition.AudioFile(sys.argv[2]) as file:
    print(json.dumps({"texts": [recognizer.recognize_openai(recognizer.record(file))]}))
