"""SASL PLAIN and LOGIN without I/O (RFC 4954, RFC 4616): lines in; a prompt, a login or a refusal out."""

import base64
import binascii
from typing import NamedTuple

from mta.ingress import replies
from mta.mail.reply import Reply

_PROMPTS = {"PLAIN": (b"",), "LOGIN": (b"Username:", b"Password:")}
MECHANISMS = tuple(_PROMPTS)
LINE_LIMIT = 12288  # octets, RFC 4954 4


class Login(NamedTuple):
    """What the client claims."""

    user: str
    password: str


class Exchange:
    """One AUTH command from its line to its end."""

    def __init__(self, mechanism: str) -> None:
        """KeyError if the mechanism is not offered."""
        self._prompts = _PROMPTS[mechanism]
        self._plain = mechanism == "PLAIN"
        self._responses: list[bytes] = []

    @property
    def prompt(self) -> Reply:
        """The challenge that asks for the next response."""
        return Reply(334, "", base64.b64encode(self._prompts[len(self._responses)]).decode("ascii"))

    def receive(self, response: str) -> Login | Reply:
        """Take a response; return the login when it is complete, else the next challenge or a refusal.

        "*" gives up; an empty response is "=" on the AUTH line and nothing on a line of its own (RFC 4954 4).
        """
        if response == "*":
            return replies.AUTH_CANCELLED
        try:
            self._responses.append(base64.b64decode("" if response == "=" else response, validate=True))
            if len(self._responses) < len(self._prompts):
                return self.prompt
            login = self._login()
        except (binascii.Error, ValueError):
            return replies.AUTH_MALFORMED
        return login if login.user and login.password else replies.AUTH_MALFORMED

    def _login(self) -> Login:
        if self._plain:
            authorize, user, password = self._responses[0].split(b"\0")
            if authorize not in (b"", user):
                raise ValueError("nobody may act for another")
        else:
            user, password = self._responses
        return Login(user.decode("utf-8"), password.decode("utf-8"))
