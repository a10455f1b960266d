"""The HTTP door: one package per dialect, each a translator to a Submission."""
