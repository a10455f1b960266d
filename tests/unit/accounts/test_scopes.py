import pytest

from mta.accounts.scopes import ENOUGH, SCOPES, allowed, granted
from mta.accounts.tenants import AccountError


@pytest.mark.parametrize(
    ("names", "scopes"),
    [
        (["send"], ("send",)),
        (["manage", "send", "send"], ("send", "manage")),
        (["mail.send"], ("send",)),
        (["emails:read", "emails:send"], ("send", "read")),
        (["messages.read"], ("read",)),
        (["full_access"], SCOPES),
        (["templates.create", "api_keys.update", "stats.read", "mail.batch.create"], ()),
    ],
)
def test_names_give_scopes(names, scopes):
    assert granted(names) == scopes


def test_no_name_gives_more_than_what_is_enough_for_it():
    """Who is good for a name by its scope could else make a key that is good for more."""
    for name, enough in ENOUGH.items():
        if name != "full_access":
            assert set(granted([name])) <= {enough}
            assert allowed(name, [enough], [])


@pytest.mark.parametrize("name", ["", "root", "mail.send.", "SEND", "mail.", "read "])
def test_an_unknown_name_is_named(name):
    with pytest.raises(AccountError, match=f"there is no scope '{name}'; scopes are send, read, manage"):
        granted(["send", name])


def test_a_name_is_good_for_itself_and_for_nothing_else():
    assert allowed("templates.create", [], ["templates.create"])
    assert not allowed("templates.delete", [], ["templates.create"])
    assert not allowed("manage", [], ["templates.create"])
    assert allowed("templates.delete", ["manage"], [])
    assert not allowed("templates.delete", ["send", "read"], [])
    assert not allowed("nonsense", SCOPES, [])


def test_full_access_is_all_of_it():
    assert not allowed("full_access", ["manage", "read"], [])
    assert allowed("full_access", SCOPES, [])


def test_a_vendors_name_can_say_more_than_its_scope() -> None:
    assert allowed("content.read", ["read"], ["emails:read"])
    assert not allowed("content.read", ["read"], ["messages.read", "read"])
    assert allowed("content.read", ["manage"], [])
