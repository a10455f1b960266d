"""The durable store: what a `250` or a `202` promises lives here."""
