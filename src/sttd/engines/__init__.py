"""Engines that decode on this machine: one model, blocking calls."""
