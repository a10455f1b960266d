"""Values of the trade: addresses, envelopes, replies, results, events. No I/O and no clock."""
