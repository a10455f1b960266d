"""What the world sees of us, and what we see of a receiver: checks, most of them pure, for `fairlead doctor`."""
