"""Living on a machine: sockets, signals, the service manager, the log."""
