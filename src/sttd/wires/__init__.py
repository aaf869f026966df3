"""How the bytes of a connection become messages."""
