"""The laboratory: DNS, receiving MX and clock, so that the whole relay runs on loopback."""
