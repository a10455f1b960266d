"""SMTP out: from a claimed job to one verdict per recipient."""
