"""Who may send, and as whom: tenants, API keys, SMTP credentials, sender domains, DKIM keys."""
