"""Query parameters: each known, each given once, each within its bounds; else a Refusal with its name."""

from collections.abc import Collection

from relay_http.body import Request
from relay_http.problem import Problem, Refusal, invalid

_TEXT_LIMIT = 512  # characters


class Parameters:
    """The query parameters of a request, of which each may be given once, and those in `several` several times."""

    def __init__(self, req: Request, known: Collection[str], several: Collection[str] = ()) -> None:
        """Refusal 400 at one that is not known."""
        self._req = req
        for name, value in req.params.items():
            if name not in known:
                raise Refusal(400, Problem(f"there are {', '.join(sorted(known))}", name[:64]))
            if isinstance(value, list) and name not in several:
                raise Refusal(400, Problem("given more than once", name))

    def has(self, name: str) -> bool:
        """Whether the parameter is there."""
        return name in self._req.params

    def texts(self, name: str) -> list[str]:
        """Read a text that may be given several times."""
        return self._req.get_param_as_list(name) or []

    def text(self, name: str, default: str = "") -> str:
        """Read a text of at most 512 characters."""
        found = self._req.get_param(name) or default
        if len(found) > _TEXT_LIMIT:
            raise invalid(f"at most {_TEXT_LIMIT} characters", name)
        return found

    def number(self, name: str, default: int, most: int) -> int:
        """Read a number from 1 to `most`."""
        text = self.text(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
            raise invalid(f"a number from 1 to {most}", name)
        return int(text)
