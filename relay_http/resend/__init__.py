"""Resend: `/emails`."""
