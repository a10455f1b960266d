"""Postmark: `/email` and `/messages/outbound`."""
