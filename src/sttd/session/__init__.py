"""One client's stream of audio, from its first message to its end."""
