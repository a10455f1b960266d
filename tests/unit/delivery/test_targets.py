"""What a stranger's DNS may make us dial: never what is inside, however it is written, wrapped or changed meanwhile.

The attacker has a domain, its zone and its resolver's time to live; mail to it is queued here. No packet of these tests
leaves the machine: whatever looks public is dialled from a loopback address, which the kernel refuses.
"""

import ipaddress
import socket

import pytest

from mta.delivery import mx
from mta.mail.result import Verdict
from tests.unit.delivery.peers import ACCEPT, EHLO, HOST, QUIT, DnsPeer, Relay, ScriptedServer, config, job

PUBLIC = "8.8.8.8"

# fmt: off
INSIDE = {
    "this host": ["0.0.0.0", "0.255.255.255", "127.0.0.1", "127.255.255.254", "::", "::1"],
    "private": ["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255",
                "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
    "link-local": ["169.254.0.1", "169.254.255.255", "fe80::1", "febf::1", "fec0::1"],
    "carrier": ["100.64.0.0", "100.127.255.255"],
    "metadata": ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192",
                 "fd00:ec2::254", "fd20:ce::254"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "ff3e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "5f00::1", "8000::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"],
    "benchmark and protocol": ["198.18.0.1", "198.19.255.255", "192.0.0.1", "192.0.0.8", "100::1", "2001:2::1",
                               "2001:10::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16",
               "::ffff:0.0.0.0"],
    "compatible": ["::127.0.0.1", "::10.0.0.1", "::169.254.169.254"],
    "translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1",
                   "64:ff9b::169.254.169.254", "64:ff9b::168.63.129.16", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::1"],
    "tunnelled": ["2002:7f00:1::1", "2002:a00:1::", "2002:a9fe:a9fe::1", "2002:a83f:8110::1", "2001::1",
                  "2001:0:4136:e378:8000:63bf:80ff:fffe"],
}
# fmt: on
ALL_INSIDE = [address for addresses in INSIDE.values() for address in addresses]


@pytest.mark.parametrize("address", ALL_INSIDE)
def test_an_address_that_leads_inside_is_not_public(address: str):
    assert not mx.is_public(ipaddress.ip_address(address))


# fmt: off
NEIGHBOURS = [
    "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
    "169.253.255.255", "169.255.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "168.63.129.15", "168.63.129.17", "2000::1", "2600::1", "2a00::1", "2003::1",
]
# fmt: on


@pytest.mark.parametrize("address", NEIGHBOURS)
def test_neighbours_of_what_is_inside_are_public(address: str):
    """Red when more is refused than is meant: mail would not go there."""
    assert mx.is_public(ipaddress.ip_address(address))


def rcpt(*hosts: str, **addresses: list[str]) -> dict[tuple[str, str], list[str]]:
    """A zone: the domain's MX hosts, and the addresses of names under test."""
    records = {("rcpt.test", "MX"): [f"10 {host}." for host in hosts]}
    for name, values in addresses.items():
        for value in values:
            records.setdefault((f"{name}.test", "AAAA" if ":" in value else "A"), []).append(value)
    return records


class Attack:
    """Mail to `rcpt.test`, with a server behind our firewall that hears who comes."""

    def __init__(self, records, *, peer: type[DnsPeer] = DnsPeer, private: bool = False) -> None:
        self._dns = peer(records, ttl=0)
        self._private = private

    async def attempts(self, number: int = 1, domain: str = "rcpt.test", port: int = 0) -> None:
        """Try; `heard` are the connections that came, `said` the replies, `asked` the questions for addresses."""
        async with ScriptedServer(EHLO + ACCEPT + QUIT) as inside, self._dns as peer:
            settings = config(
                port=port or inside.port,
                allow_private_targets=self._private,
                sources=[{"name": "a", "address": [HOST, "::1"], "hostname": "relay.test"}],
            )
            async with Relay(settings, dns=peer.settings) as relay:
                outcomes = [await relay.attempt(job(domain=domain)) for _ in range(number)]
            self.heard = inside.heard
        self.asked = [name for name, kind, _ in peer.asked if kind == "A"]
        self.verdicts = {each.results[0].verdict for each in outcomes}
        self.said = [str(each.results[0].reply) for each in outcomes]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0", "::"])
async def test_an_mx_host_with_an_address_inside_is_not_dialled(address: str):
    attack = Attack(rcpt("mx.test", mx=[address]))
    await attack.attempts()
    assert attack.heard == []
    assert Verdict.DELIVERED not in attack.verdicts


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"],
)
async def test_an_mx_host_written_as_an_address_is_not_dialled(host: str):
    """Red when anything but our resolver reads a host: libc takes 127.1 and 0x7f000001 for addresses."""
    attack = Attack(rcpt(host))
    await attack.attempts()
    assert attack.heard == []
    assert Verdict.DELIVERED not in attack.verdicts


@pytest.mark.parametrize("domain", ["[127.0.0.1]", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.1]", "[IPv6:64:ff9b::7f00:1]"])
async def test_a_domain_written_as_an_address_is_not_dialled(domain: str):
    attack = Attack({})
    await attack.attempts(domain=domain)
    assert attack.heard == []


@pytest.mark.parametrize("target", ["inside", "localhost"])
async def test_an_alias_of_a_name_inside_is_not_dialled(target: str):
    name = "localhost" if target == "localhost" else f"{target}.test"
    records = rcpt("mx.test", inside=["127.0.0.1"])
    records["mx.test", "CNAME"] = [f"{name}."]
    records["localhost", "A"] = ["127.0.0.1"]
    attack = Attack(records)
    await attack.attempts()
    assert attack.heard == []
    records = {
        ("rcpt.test", "CNAME"): [f"{name}."],
        ("localhost", "A"): ["127.0.0.1"],
        ("inside.test", "A"): ["127.0.0.1"],
    }
    attack = Attack(records)
    await attack.attempts()
    assert attack.heard == []


async def test_what_is_inside_is_left_out_among_public_addresses():
    attack = Attack(rcpt("mx.test", mx=["127.0.0.1", PUBLIC, "10.0.0.1", "::1"]))
    await attack.attempts()
    assert attack.heard == []
    assert f"mx.test[{PUBLIC}]" in attack.said[0]


class _Rebinding(DnsPeer):
    """Each question for the address of mx.test has the next answer, the last one over and over."""

    answers: tuple[str, ...] = ()

    def answer(self, wire: bytes, over: str) -> bytes | None:
        number = sum(name == "mx.test" and kind == "A" for name, kind, _ in self.asked)
        self.records["mx.test", "A"] = [self.answers[min(number, len(self.answers) - 1)]]
        return super().answer(wire, over)


def rebinding(*answers: str) -> type[DnsPeer]:
    return type("Rebinding", (_Rebinding,), {"answers": answers})


async def test_a_name_that_changes_between_check_and_dial_leads_nowhere():
    """Red when the name is looked up again to be dialled: the second answer is the one behind the firewall."""
    attack = Attack(rcpt("mx.test"), peer=rebinding(PUBLIC, "127.0.0.1"))
    await attack.attempts()
    assert attack.heard == []
    assert attack.asked.count("mx.test") == 1
    assert f"mx.test[{PUBLIC}]" in attack.said[0]


async def test_a_name_that_changes_between_attempts_is_checked_again():
    attack = Attack(rcpt("mx.test"), peer=rebinding(PUBLIC, "127.0.0.1", PUBLIC, "127.0.0.1"))
    await attack.attempts(4)
    assert attack.heard == []
    assert Verdict.DELIVERED not in attack.verdicts
    assert [PUBLIC in each for each in attack.said] == [True, False, True, False]


async def test_the_address_that_was_looked_up_is_the_one_that_is_dialled():
    """The control: where the inside is allowed, the first answer gets the connection, and it is asked for once."""
    attack = Attack(rcpt("mx.test"), peer=rebinding("127.0.0.1", "127.0.0.9"), private=True)
    await attack.attempts()
    assert len(attack.heard) == 1
    assert attack.verdicts == {Verdict.DELIVERED}
    assert attack.asked.count("mx.test") == 1


async def test_nobody_but_our_resolver_is_asked_for_a_name(monkeypatch):
    """Red when a library looks a host up by itself, past the check."""
    asked = []
    real = socket.getaddrinfo

    def spy(host, *args, **options):
        asked.append(host)
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", spy)
    attack = Attack(rcpt("mx.test", mx=["127.0.0.1"]), private=True)
    await attack.attempts()
    assert attack.verdicts == {Verdict.DELIVERED}
    assert "mx.test" not in asked
    assert "rcpt.test" not in asked
