"""Engines that other machines run."""
