"""What builds, checks and tries the project; not part of what is installed."""
