"""Putting files and names on disk: what is there after a power cut is what was synced."""

import os
from pathlib import Path


def sync_to_disk(path: Path) -> None:
    """Have a file's content, or a directory's names, on disk; OSError if that fails."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
