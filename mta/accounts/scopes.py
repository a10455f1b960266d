"""What a key is good for: the scopes send, read and manage, and the names that vendors have for parts of them.

A name of a vendor's gives a scope only if it says as much: who asked for `templates.create` is not to drop mail. It is
kept with the key, and is good for what has that name; so is a scope that has it all.
"""

from collections.abc import Collection, Iterable

from mta.accounts.tenants import AccountError

SCOPES = ("send", "read", "manage")
OPERATOR_SCOPES = ("read", "manage")  # who sends is a tenant

_GIVES = {
    "mail.send": ("send",),
    "messages.read": ("read",),
    "emails:send": ("send",),
    "emails:read": ("read",),
    "full_access": SCOPES,
    "sending_access": ("send",),
}
# SendGrid's, of which each is create, read, update or delete; with the scope that is good for the changes.
_SENDGRID = {
    "api_keys": "manage",
    "asm.groups": "manage",
    "asm.groups.suppressions": "manage",
    "asm.suppressions.global": "manage",
    "mail.batch": "send",
    "suppression": "manage",
    "suppression.blocks": "manage",
    "suppression.bounces": "manage",
    "suppression.invalid_emails": "manage",
    "suppression.spam_reports": "manage",
    "suppression.unsubscribes": "manage",
    "templates": "manage",
    "templates.versions": "manage",
    "templates.versions.activate": "manage",
    "user.scheduled_sends": "send",
    "user.webhooks.event.settings": "manage",
    "user.webhooks.event.test": "manage",
    "user.webhooks.parse.settings": "manage",
    "verified_senders": "manage",
    "whitelabel": "manage",
}
_CHANGES = ("create", "update", "delete")
ENOUGH = (
    {each: each for each in SCOPES}
    | {"mail.send": "send", "emails:send": "send", "sending_access": "send"}
    | {
        "messages.read": "read",
        "emails:read": "read",
        "stats.read": "read",
        "scopes.read": "read",
        "content.read": "manage",  # what messages say
        "full_access": "manage",
    }
    | {f"{name}.read": "read" for name in _SENDGRID}
    | {f"{name}.{verb}": scope for name, scope in _SENDGRID.items() for verb in _CHANGES}
)
"""Every name that a key can be asked for with, and the scope that is enough for it."""


_SAYS_MORE = {"emails:read": ("content.read",)}  # than its scope, to the vendor's users


def meant(names: Iterable[str]) -> list[str]:
    """Return names with those that they say, too."""
    return [each for name in names for each in (name, *_SAYS_MORE.get(name, ()))]


def granted(names: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes that names give; AccountError naming the first that is unknown."""
    found = set[str]()
    for name in names:
        if name not in ENOUGH:
            raise AccountError(f"there is no scope {name[:64]!r}; scopes are {', '.join(SCOPES)}")
        found.update(_GIVES.get(name, (name,)))
    return tuple(scope for scope in SCOPES if scope in found)


def allowed(name: str, scopes: Collection[str], grants: Collection[str]) -> bool:
    """Tell whether scopes, or the names that a key was asked for with, are good for what has this name."""
    if name == "full_access":
        return all(each in scopes for each in SCOPES)
    return name in scopes or name in meant(grants) or ENOUGH.get(name) in scopes
