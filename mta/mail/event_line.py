"""The log line of an event: one line of key=value text that no outside text can break out of.

The keys are Postfix's where the meaning is: `status` is what became of the recipient, `dsn` the enhanced
status (RFC 3463). `-` stands for "does not apply".
"""

import re

from mta.mail.event import Event

_PLAIN = re.compile(r'[^\s"\\=]+')


def quoted(value: str) -> str:
    """Write outside text as the value of key=value: bare when that is unambiguous, else quoted and escaped.

    What is not printable (line ends, controls, direction marks, lone surrogates) is written as Python
    escapes it.
    """
    if value.isprintable() and value != "-" and _PLAIN.fullmatch(value):
        return value
    return f'"{"".join(map(_escaped, value))}"'


def _escaped(char: str) -> str:
    if char == '"':
        return '\\"'
    if char.isprintable() and char != "\\":
        return char
    return char.encode("unicode_escape").decode("ascii")


def outcome_line(event: Event) -> str:
    """Tell an outcome as `message= to= relay= tls= delay= status= dsn= reply=`; delay in seconds since acceptance.

    With `source=` behind `relay=` where sources are configured.
    """
    said = event.reply or event.reason
    relay = _shown(event.relay) + (f" source={event.source_name}" if event.source_name else "")
    return (
        f"message={event.message} to={_shown(event.recipient)} relay={relay} tls={_shown(event.tls)} "
        f"delay={event.delay:.2f} status={event.type} dsn={_shown(event.status)} reply={_shown(said)}"
    )


def _shown(value: str) -> str:
    return quoted(value) if value else "-"
