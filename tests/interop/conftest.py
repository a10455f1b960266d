"""One relay in its laboratory, and the Postfixes around it, for all tests of this directory."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from mta.config import HostPort
from mta.lab.ca import self_signed
from tests.interop.installation import Installation, installation
from tests.interop.peers import Postfix, postfix, receiving_postfix
from tests.interop.processes import free_ports

_ANOTHER_ADDRESS = "127.0.0.3"  # all MXs share a port


class PostfixBefore(NamedTuple):
    """A Postfix that sends everything to the relay."""

    postfix: Postfix
    starttls: bool


@pytest.fixture(scope="session")
def site() -> Iterator[Installation]:
    """The relay that all tests use."""
    with installation() as running:
        yield running


@pytest.fixture(scope="session", params=[False, True], ids=["clear", "STARTTLS"])
def postfix_before(site: Installation, request: pytest.FixtureRequest) -> Iterator[PostfixBefore]:
    """Postfix as our client."""
    starttls = bool(request.param)
    settings = {
        "relayhost": f"[127.0.0.1]:{site.relay_starttls if starttls else site.ports.relay}",
        "smtp_tls_security_level": "encrypt" if starttls else "none",
        "smtp_dns_support_level": "disabled",
    }
    with postfix(HostPort(host="127.0.0.1", port=free_ports(1)[0]), settings) as running:
        yield PostfixBefore(running, starttls)


@pytest.fixture(scope="session")
def postfix_behind(site: Installation) -> Iterator[Postfix]:
    """Postfix as the MX of `postfix.test`, with STARTTLS; its certificate is of its own making."""
    lab = site.lab.lab
    address = HostPort(host=_ANOTHER_ADDRESS, port=lab.mx_port)
    with receiving_postfix(address, "mx.postfix.test", self_signed(lab.ca.directory, "mx.postfix.test")) as running:
        lab.zone.set("mx.postfix.test", "A", _ANOTHER_ADDRESS)
        lab.zone.set("postfix.test", "MX", "10 mx.postfix.test.")
        yield running
