"""The parameters of a request by their names, in the order in which they came."""

from collections.abc import Iterator, Sequence

from relay_http.forms import FormPart
from relay_http.problem import invalid

OPTIONS_OCTETS = 16 << 10  # of all o:, h:, v: and t: parameters together
_PREFIXES = ("o:", "h:", "v:", "t:")
_FIELD_CHARS = 76
# What the vendor takes from header fields of these names, too
_TWINS = {
    "x-mailgun-tag": "o:tag",
    "x-mailgun-dkim": "o:dkim",
    "x-mailgun-deliver-by": "o:deliverytime",
    "x-mailgun-deliver-within": "o:deliver-within",
    "x-mailgun-drop-message": "o:testmode",
    "x-mailgun-track": "o:tracking",
    "x-mailgun-track-clicks": "o:tracking-clicks",
    "x-mailgun-track-opens": "o:tracking-opens",
    "x-mailgun-require-tls": "o:require-tls",
    "x-mailgun-skip-verification": "o:skip-verification",
    "x-mailgun-recipient-variables": "recipient-variables",
}


class Parameters:
    """A form, asked for what is known; what nobody asks for is not looked at."""

    def __init__(self, parts: Sequence[FormPart]) -> None:
        """Refusal 400 when there is too much in options."""
        self._named: dict[str, list[FormPart]] = {}
        octets = 0
        for each in parts:
            name = each.name
            if name.startswith(_PREFIXES):
                octets += len(name.encode()) + len(each.data)
                if name.startswith("h:"):
                    name = _TWINS.get(name[2:].lower(), name)
            self._named.setdefault(name, []).append(each)
        if octets > OPTIONS_OCTETS:
            raise invalid(f"o:, h:, v: and t: parameters are limited to {OPTIONS_OCTETS >> 10} kB together")

    def has(self, name: str) -> bool:
        """Whether a parameter is there, with whatever value."""
        return name in self._named

    def parts(self, name: str) -> Sequence[FormPart]:
        """Return what was given under a name as it came."""
        return self._named.get(name, ())

    def texts(self, name: str) -> list[str]:
        """Return all values of a name that are not empty."""
        return [each.text() for each in self.parts(name) if each.data]

    def text(self, name: str) -> str:
        """Return the value of a name that may be given once, "" if it is not."""
        found = self.texts(name)
        if len(found) > 1:
            raise invalid(f"'{name[:_FIELD_CHARS]}' parameter is given {len(found)} times", name[:_FIELD_CHARS])
        return found[0] if found else ""

    def prefixed(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Walk the parameters that begin so: the rest of their names, and their values."""
        for name in self._named:
            if name.startswith(prefix):
                yield name[len(prefix) :], self.text(name)
