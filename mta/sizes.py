"""Sizes as the configuration has them: octets, with a unit, or a share of something."""

import re

SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(|KiB|MiB|GiB|TiB|%)")
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def octets_of(size: str | int, whole: int) -> int:
    """Read a size that the configuration has admitted: octets, `500MiB`, or a share of `whole` such as `10%`."""
    if isinstance(size, int):
        return size
    found = SIZE.fullmatch(size.strip())
    if found is None:
        raise ValueError(f"not a size: {size!r}")
    number = float(found[1])
    return int(whole * number / 100) if found[2] == "%" else int(number * _UNITS[found[2]])
