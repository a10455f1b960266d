"""Fairlead: an SMTP relay and MTA that takes responsibility for a message only when it is on disk."""
