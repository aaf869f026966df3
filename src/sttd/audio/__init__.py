"""The audio path: from bytes in any format to utterances of 16 kHz mono PCM. No sockets, no recognizer, no clock."""
