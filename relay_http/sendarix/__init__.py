"""Sendarix: `/v1/messages`."""
