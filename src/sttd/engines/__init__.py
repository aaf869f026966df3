"""Engines: recognizers that decode on this machine, with one model each and blocking calls."""
