"""Followers of the event log."""
