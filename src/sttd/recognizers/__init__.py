"""Recognizers: a session's side of recognition, over an engine on this machine or a cloud."""
