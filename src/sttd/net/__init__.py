"""The network side: the HTTP front door, WebSockets, and what one client may take."""
