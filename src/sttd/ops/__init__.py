"""The daemon as a process of its machine: sockets, signals, the service manager, the log."""
