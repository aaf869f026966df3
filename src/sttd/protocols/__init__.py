"""Session protocols without I/O: a client's messages become commands, and events become messages to the client."""
