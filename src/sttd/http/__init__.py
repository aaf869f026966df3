"""The front door: requests, who may make them, and what is answered."""
