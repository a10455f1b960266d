"""Views: what lists, details and searches read, in SQLite, built by following the log (docs/decisions/0028)."""
