"""The only code that changes a message's state: accept, next_job, settle."""
