"""`fairlead lab`: the whole relay in a laboratory on loopback, to be tried in a minute; nothing leaves the machine."""
