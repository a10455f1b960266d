"""The Emails API: `/api/v1/emails`."""
