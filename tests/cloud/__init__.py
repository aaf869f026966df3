"""The cloud providers against stand-ins that speak their wire formats over real sockets."""
