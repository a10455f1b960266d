"""The content of one message as it arrives after DATA: found, checked and unstuffed, a stretch at a time.

End of data is exactly CRLF.CRLF (RFC 5321 4.1.1.4): nothing else ends a message, whatever stands around the
dot and however it is cut into packets. There is no work per line: searches, counts and one replacement.
"""

from mta.ingress import replies
from mta.mail.reply import Reply

_END = b"\r\n.\r\n"
_SMALL = 4096  # octets; stretches below are joined, for a client that sends single octets


class Budget:
    """The octets that all sessions of the process hold, against `limit`. A session adds and takes back its own."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing more should be taken in."""
        return self.used > self.limit


class Body:
    """Content from the 354 to its end. `held` octets wait for `take`; `size` counts all of them.

    After a refusal the rest is read and forgotten, so that the session stays in step; `fatal` means that
    it cannot, because client and server may not agree on where the message ends.
    """

    def __init__(self, size_limit: int, line_limit: int, *, fix_newlines: bool) -> None:
        """Limits in octets, line ends not counted."""
        self.size = 0
        self.held = 0
        self.eight_bit = False
        self.ended = False
        self.refusal: Reply | None = None
        self.fatal = False
        self._size_limit = size_limit
        self._line_limit = line_limit + 2
        self._fix_newlines = fix_newlines
        self._pieces: list[bytes] = []
        self._line = 0  # octets of the line that the next stretch goes on with
        self._begun = False
        self._before = b""  # the octet before the next stretch
        # The CRLF of the DATA line is the one before the first line: "." there is an empty message.
        self._tail = b"\r\n"

    def receive(self, data: bytes) -> bytes | None:
        """Take in what has arrived; return what follows the end of data, None if that has not come."""
        window = self._tail + data if self._tail else data
        end = window.find(_END)
        if end < 0:
            held_back = _begun_end(window)
            self._tail = window[len(window) - held_back :]
            piece = window[: len(window) - held_back]
        else:
            piece = window[: end + 2]
            self.ended = True
        if piece and self.refusal is None:
            self._keep(piece)
        return window[end + len(_END) :] if self.ended else None

    def take(self) -> bytes:
        """Give away what is held."""
        content = b"".join(self._pieces)
        self._pieces = []
        self.held = 0
        return content

    def refuse(self, reply: Reply) -> None:
        """Keep nothing of this message, and answer so at its end; the first refusal stands."""
        self.refusal = self.refusal or reply
        self.take()

    def _keep(self, piece: bytes) -> None:
        """Check a stretch and hold it. It never begins or ends within a CRLF, nor within CRLF and a dot."""
        alone = piece.replace(b"\r\n", b"")  # PERF: a third of the time that counting CR, LF and CRLF takes
        whole = b"\n" not in alone and b"\r" not in alone
        if b"\0" in alone or not (whole or self._fix_newlines) or self._doubtful_end(piece):
            self.fatal = True
            self.refuse(replies.NUL_IN_CONTENT if b"\0" in piece else replies.BARE_IN_CONTENT)
            return
        self._before = piece[-1:]
        piece = piece.replace(b"\r\n.", b"\r\n")  # RFC 5321 4.5.2
        if not whole:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        if not self._begun:
            self._begun = True
            piece = piece[2:]
        self.size += len(piece)
        if self.size > self._size_limit:
            self.refuse(replies.TOO_BIG)
        elif self._too_long_line(piece):
            self.refuse(replies.LINE_IN_CONTENT_TOO_LONG)
        else:
            self.held += len(piece)
            self.eight_bit = self.eight_bit or not piece.isascii()
            if self._pieces and len(self._pieces[-1]) < _SMALL:
                self._pieces[-1] += piece
            else:
                self._pieces.append(piece)

    def _doubtful_end(self, piece: bytes) -> bool:
        """Tell whether CR CR LF comes before the last dot, which only some servers take for the end of a line."""
        return self.ended and (self._before + piece[-3:]).endswith(b"\r\r\n")

    def _too_long_line(self, piece: bytes) -> bool:
        """Go through the lines in the largest steps that the limit allows: two steps pass more than a limit."""
        limit = self._line_limit
        if self._line + len(piece) <= limit:
            end = piece.rfind(b"\n") + 1
            self._line = len(piece) - end if end else self._line + len(piece)
            return False
        at = piece.find(b"\n") + 1
        if at == 0 or self._line + at > limit:
            return True
        while len(piece) - at > limit:
            at = piece.rfind(b"\n", at, at + limit) + 1
            if at == 0:
                return True
        self._line = len(piece) - piece.rfind(b"\n") - 1
        return False


def _begun_end(window: bytes) -> int:
    """Return how many octets at the end of `window` may be the beginning of the end of data."""
    for length in range(len(_END) - 1, 0, -1):
        if window.endswith(_END[:length]):
            return length
    return 0
