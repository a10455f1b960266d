"""/v4/domains: the sender domains of a tenant, and what the DNS must say of each."""

import falcon.asgi
import msgspec

from mta.accounts import domains
from mta.accounts.domains import Domain, Selector, State
from mta.accounts.tenants import AccountError
from mta.mail.headers import format_date
from relay_http.body import Request
from relay_http.door import Door
from relay_http.mailgun.errors import MAILGUN
from relay_http.mailgun.own import owns, unknown_domain
from relay_http.mailgun.shown import Json
from relay_http.problem import invalid

LIMIT = 1000
_USUAL = 100
_SKIP_LIMIT = 1_000_000


class Domains:
    """The list of domains."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        """List domains by name."""
        key = await self._door.enter(req, MAILGUN, "read")
        limit, skip = _number(req, "limit", _USUAL, LIMIT), _number(req, "skip", 0, _SKIP_LIMIT)
        search = req.get_param("search", default="").lower()
        found = [each for each in await domains.list_all(self._door.spool) if owns(key, each) and search in each.name]
        items = [_shown(each) for each in found[skip : skip + limit]]
        _answer(resp, {"total_count": len(found), "items": items})


class OneDomain:
    """One domain."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_get(self, req: Request, resp: falcon.asgi.Response, name: str) -> None:
        """Show a domain and its DNS records."""
        key = await self._door.enter(req, MAILGUN, "read")
        try:
            domain = await domains.find(self._door.spool, domains.normalise(name))
        except AccountError:
            domain = None
        if domain is None or not owns(key, domain):
            raise unknown_domain(name)
        records = [_record(domain, each) for each in domain.selectors if each.state is not State.RETIRED]
        _answer(resp, {"domain": _shown(domain), "sending_dns_records": records, "receiving_dns_records": []})


def _number(req: Request, name: str, usual: int, most: int) -> int:
    text = req.get_param(name, default="") or str(usual)
    if not text.isascii() or not text.isdigit() or int(text[:9]) > most:
        raise invalid(f"'{name}' parameter must be a number up to {most}", name)
    return int(text[:9])


def _shown(domain: Domain) -> Json:
    signs = any(each.state is State.ACTIVE for each in domain.selectors)
    return {
        "id": domain.name,
        "name": domain.name,
        "state": "active" if signs else "unverified",
        "created_at": format_date(domain.created_at),
        "type": "custom",
        "is_disabled": False,
        "require_tls": False,
        "skip_verification": False,
        "spam_action": "disabled",
        "wildcard": False,
    }


def _record(domain: Domain, selector: Selector) -> Json:
    active = selector.state is State.ACTIVE
    return {
        "record_type": "TXT",
        "name": f"{selector.name}._domainkey.{domain.name}",
        "value": selector.dns_value,
        "valid": "valid" if active else "unknown",
        "is_active": active,
        "cached": [],
    }


def _answer(resp: falcon.asgi.Response, body: Json) -> None:
    resp.data = msgspec.json.encode(body)
    resp.content_type = falcon.MEDIA_JSON
