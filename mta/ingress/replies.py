"""What the SMTP server says: every reply that is always the same (RFC 5321 4.2, RFC 3463, RFC 5248)."""

from mta.mail.reply import Reply

OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "OK")
RECIPIENT_OK = Reply(250, "2.1.5", "OK")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
BYE = Reply(221, "2.0.0", "Bye")
HELP = Reply(214, "2.0.0", "See RFC 5321")
NOT_VERIFIED = Reply(252, "2.5.0", "Not verified; mail for it is taken if it can be delivered")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
AUTHENTICATED = Reply(235, "2.7.0", "Authentication succeeded")

# Closing
DRAINING = Reply(421, "4.3.2", "Service shutting down, try again shortly")
TOO_MANY_CONNECTIONS = Reply(421, "4.3.2", "Too many connections, try again later")
TOO_MANY_FROM_CLIENT = Reply(421, "4.7.0", "Too many connections from your address")
TIMED_OUT = Reply(421, "4.4.2", "Timed out waiting for the client")
SESSION_TOO_LONG = Reply(421, "4.4.2", "Session has lasted too long, connect again")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands, connect again")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins")
TOO_MUCH_INPUT = Reply(421, "4.7.0", "Too much sent ahead of the replies")
INTERNAL = Reply(451, "4.3.0", "Internal error, try again later")
NOT_A_CLIENT = Reply(554, "5.7.1", "This address may not relay here")
BARE_IN_COMMAND = Reply(500, "5.5.2", "Bare CR, bare LF or NUL in a command; lines end with CRLF")
BARE_IN_CONTENT = Reply(550, "5.5.2", "Bare CR or bare LF in the message; lines end with CRLF (RFC 5321 2.3.8)")
NUL_IN_CONTENT = Reply(550, "5.6.0", "NUL octet in the message")
AFTER_DATA = Reply(554, "5.5.0", "Content sent before the reply to DATA (RFC 2920 3.1)")
AFTER_STARTTLS = Reply(554, "5.5.0", "Commands sent after STARTTLS before the handshake")
NOT_SMTP = Reply(554, "5.5.0", "This is not an HTTP server")

# Commands
UNKNOWN = Reply(500, "5.5.1", "Command not recognized")
NOT_UTF8 = Reply(500, "5.5.2", "Command is not UTF-8")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
NO_ARGUMENT = Reply(501, "5.5.4", "Command takes no argument")
NEEDS_ARGUMENT = Reply(501, "5.5.4", "Command needs an argument")
BAD_HELO = Reply(501, "5.5.4", "Say HELO or EHLO and one host name or address literal")
HELO_FIRST = Reply(503, "5.5.1", "Send HELO or EHLO first")
MAIL_FIRST = Reply(503, "5.5.1", "Send MAIL first")
NESTED_MAIL = Reply(503, "5.5.1", "Sender already given")
IN_TRANSACTION = Reply(503, "5.5.1", "Not during a mail transaction")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients, send the others in another transaction")

# TLS and AUTH
TLS_NOT_OFFERED = Reply(502, "5.5.1", "STARTTLS is not offered here")
TLS_ALREADY = Reply(503, "5.5.1", "TLS is already active")
STARTTLS_FIRST = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
CERTIFICATE_FIRST = Reply(530, "5.7.0", "A client certificate that may relay here is required")
AUTH_FIRST = Reply(530, "5.7.0", "Authentication required")
AUTH_NOT_OFFERED = Reply(502, "5.5.1", "AUTH is not offered here")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
AUTH_ALREADY = Reply(503, "5.5.1", "Already authenticated")
AUTH_UNKNOWN = Reply(504, "5.5.4", "Authentication mechanism not supported; use PLAIN or LOGIN")
AUTH_MALFORMED = Reply(501, "5.5.2", "Malformed authentication response")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_FAILED = Reply(535, "5.7.8", "Authentication credentials invalid")
LOGIN_ENDED = Reply(451, "4.7.0", "This login is not good any more: connect and log in again")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Authentication is not possible just now, try again later")

# Content
TOO_BIG = Reply(552, "5.3.4", "Message is larger than allowed")
HEADER_TOO_BIG = Reply(552, "5.3.4", "Message header is larger than 256 KiB")
LINE_IN_CONTENT_TOO_LONG = Reply(554, "5.6.0", "Message has a line that is too long")
NO_BUFFERS = Reply(452, "4.3.1", "Too much mail in transit, try again later")
LOOP = Reply(554, "5.4.6", "Too many Received fields: this is a mail loop")
NO_FROM = Reply(554, "5.6.0", "Message has no From field with an address that has a domain (RFC 5322 3.6)")
SPOOL_FULL = Reply(452, "4.3.1", "Insufficient system storage, try again later")
TENANT_REFUSED = {
    "disk": Reply(452, "4.3.1", "Insufficient system storage for more of your mail"),
    "backlog": Reply(421, "4.3.2", "More of your mail is waiting than can be delivered in time"),
    "limit": Reply(421, "4.3.2", "As much of your mail is waiting as may wait"),
}
SPOOL_UNAVAILABLE = Reply(451, "4.3.0", "Mail system cannot store mail just now, try again later")
SPOOL_REFUSED = Reply(554, "5.3.0", "Message cannot be stored")


def queued_as(message_id: str) -> Reply:
    """Take responsibility for a message."""
    return Reply(250, "2.0.0", f"OK queued as {message_id}")


def sandboxed_as(message_id: str) -> Reply:
    """Say that a message is good, and goes nowhere."""
    return Reply(250, "2.0.0", f"OK queued as {message_id} (sandbox: it is not delivered)")


def throttled(seconds: int) -> Reply:
    """Refuse a message whose rate is taken up: a matter of policy at the end of data (RFC 5321 4.3.2, 450)."""
    return Reply(450, "4.7.1", f"More mail than the rate of this account allows, try again in {seconds} seconds")


def tenant_refused(cause: str, seconds: int) -> Reply:
    """Refuse a tenant's new mail for a time: mta.queue.capacity. 421 ends the session (RFC 5321 3.8), 452 does not."""
    reply = TENANT_REFUSED[cause]
    return reply._replace(text=f"{reply.text}, try again in {seconds} seconds")
