"""HTTP: connections, requests, access, and answers."""
