"""Our own API, and what all of it has in common with the management API."""
