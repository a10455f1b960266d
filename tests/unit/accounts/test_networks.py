import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.accounts.networks import NetworkError, network_of, outside, within

FOUR = st.ip_addresses(v=4).map(int)
SIX = st.integers(1 << 100, (1 << 128) - 1)  # below are those that stand for IPv4


@st.composite
def networks(draw):
    """Networks that are often near each other, so that some hold others."""
    if draw(st.booleans()):
        address, bits = draw(st.sampled_from([0xC0000200, 0xC0000280, 0x0A000000]) | FOUR), draw(st.integers(20, 32))
        return str(ipaddress.IPv4Network((address, bits), strict=False))
    near = int(ipaddress.IPv6Address("2001:db8::"))
    address, bits = draw(st.integers(near, near + (1 << 68)) | SIX), draw(st.integers(56, 128))
    return str(ipaddress.IPv6Network((address, bits), strict=False))


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7/24", "192.0.2.0/24"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_usual_form(text, usual):
    assert network_of(text) == usual
    assert network_of(usual) == usual


@pytest.mark.parametrize(
    "text",
    ["", "x", "192.0.2", "192.0.2.0/33", "192.0.2.0/", "fe80::1%eth0", "010.0.0.1", "1" * 4000, "10.0.0.1\n", "é"],
)
def test_no_network(text):
    with pytest.raises(NetworkError, match="is not an address or a network"):
        network_of(text)


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("192.0.2.255", True),
        ("192.0.3.0", False),
        ("::ffff:192.0.2.1", True),
        ("::ffff:c000:201", True),
        ("2001:db8::1", True),
        ("fe80::1%eth0", True),
        ("2001:db9::1", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_within(address, inside):
    assert within(address, ("192.0.2.0/24", "2001:db8::/32", "fe80::/10")) is inside


def test_no_ipv4_client_comes_by_way_of_ipv6():
    assert not within("::ffff:192.0.2.1", ("::/0",))
    assert within("::ffff:192.0.2.1", ("0.0.0.0/0",))


def test_two_halves_have_the_whole():
    assert outside(["10.0.0.0/8"], ["10.0.0.0/9", "10.128.0.0/9"]) == ""
    assert outside(["10.0.0.0/8", "192.0.2.1/32"], ["10.0.0.0/9"]) == "10.0.0.0/8"
    assert outside(["::/0"], ["0.0.0.0/0"]) == "::/0"


@given(st.lists(networks(), min_size=1, max_size=3), st.lists(networks(), max_size=6))
def test_what_is_not_outside_holds_every_address(inner, outer):
    """The first and the last address of each network are in the others exactly if no network is outside."""
    ends = [ipaddress.ip_network(each) for each in inner]
    addresses = [str(address) for each in ends for address in (each[0], each[-1])]
    if outside(inner, outer) == "":
        assert all(within(address, tuple(outer)) for address in addresses)
    else:
        missing = ipaddress.ip_network(outside(inner, outer))
        same = [each for each in map(ipaddress.ip_network, outer) if each.version == missing.version]
        assert not any(missing.subnet_of(each) for each in ipaddress.collapse_addresses(same))


@given(networks(), st.data())
def test_an_address_of_a_network_is_within_it_and_the_next_one_is_not(text, data):
    network = ipaddress.ip_network(text)
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    assert within(str(network[offset]), (text,))
    if network.version == 4:
        assert within(f"::ffff:{network[offset]}", (text,))
    after = int(network[-1]) + 1
    if after < 1 << network.max_prefixlen:
        assert not within(str(type(network[0])(after)), (text,))
