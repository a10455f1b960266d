"""What turns a request into the bytes of a message."""
