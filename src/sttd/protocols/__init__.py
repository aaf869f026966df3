"""Wire protocols without I/O: a client's messages become commands, events become messages to the client."""
