"""The configured provider as the daemon runs it."""
