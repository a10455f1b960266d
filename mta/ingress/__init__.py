"""SMTP in: a server without I/O and the thin shell around it."""
