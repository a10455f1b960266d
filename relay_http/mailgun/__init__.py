"""Mailgun's v3 API: sending, events, stored messages, and reading domains."""
