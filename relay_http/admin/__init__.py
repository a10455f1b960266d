"""Our own management API, under /admin: docs/api.md."""
