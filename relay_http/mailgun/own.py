"""Whose a domain in a path is: what is not the tenant's does not exist (promise 9)."""

from falcon.routing import BaseConverter

from mta.accounts import domains
from mta.accounts.domains import Domain
from mta.accounts.keys import ApiKey
from relay_http.door import Door
from relay_http.problem import Refusal, not_found


class DomainInPath(BaseConverter):
    """Falcon's converter: a segment without a dot is no domain, and the path another's."""

    def convert(self, value: str) -> str | None:
        """Return the domain, None if it is none."""
        return value if "." in value else None


async def require_domain(door: Door, key: ApiKey, name: str) -> Domain:
    """Return the registered domain at or above one in a path; Refusal 404 unless it is of the key's tenant."""
    owner = await domains.owner_of(door.spool, name)
    if owner is None or not owns(key, owner):
        raise unknown_domain(name)
    return owner


def owns(key: ApiKey, domain: Domain) -> bool:
    """Tell whether a key is good for a domain: an operator's for all."""
    return key.operator or domain.tenant == key.tenant


def unknown_domain(name: str) -> Refusal:
    """Refuse a domain that the key's tenant does not have, in the words that clients look for."""
    return not_found(f"Domain not found: {name[:253]}")
