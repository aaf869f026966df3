"""The audio path: bytes in any format in, utterances of 16 kHz mono PCM out. No sockets, no recognizer, no clock."""
