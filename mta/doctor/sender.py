"""What a receiver sees of a sender domain: SPF, DKIM, DMARC and its alignment, and where its bounces go.

Mail taken over HTTP has the From address as its return path; over SMTP the client says one. Here it is taken for the
domain's own.
"""

import asyncio
import ipaddress
from collections.abc import Sequence

import msgspec

from mta.accounts import dkim_keys
from mta.accounts.domains import Domain, Selector, State
from mta.delivery.mx import site_of
from mta.delivery.resolver import NoAnswer, Resolver
from mta.delivery.trouble import NoWay
from mta.doctor import dmarc, spf_record
from mta.doctor.dmarc import Dmarc, DmarcError
from mta.doctor.findings import Finding, Grade, ok, problem, shown, warning
from mta.doctor.ourselves import Leaving
from mta.doctor.receiver import hosts_of
from mta.doctor.spf import LOOKUPS, Checked, Spf, check_host
from mta.mail.key_record import differs, tags_of

_SMTP = 25
_LATER = "try again later"


class Sender(msgspec.Struct, frozen=True):
    """A From domain, the registered domain that signs for it, and the public addresses that its mail leaves from."""

    domain: str
    registered: Domain
    leavings: tuple[Leaving, ...]


async def findings(sender: Sender, resolver: Resolver) -> list[Finding]:
    """Check all that a receiver checks."""
    parts = await asyncio.gather(
        of_spf(sender, resolver), of_dkim(sender, resolver), of_dmarc(sender, resolver), return_path(sender, resolver)
    )
    return [each for part in parts for each in part]


async def of_spf(sender: Sender, resolver: Resolver) -> list[Finding]:
    """Check the SPF record for each address that mail leaves from, and what it says of all others (RFC 7208)."""
    found = await _spf_record(sender, resolver)
    if any(each.grade is not Grade.OK for each in found):
        return found
    if not sender.leavings:
        said = "whether it passes is not known: no address of ours is one that receivers see"
        return [*found, warning("spf of ours", said, "say which are: --address ADDRESS, for each")]
    checks = [_check(sender.domain, each, resolver) for each in sender.leavings]
    return [*found, *await asyncio.gather(*checks)]


async def _spf_record(sender: Sender, resolver: Resolver) -> list[Finding]:
    try:
        selected = spf_record.select((await resolver.texts(sender.domain)).texts)
    except NoAnswer as error:
        return [warning("spf", f"no answer from the DNS ({shown(str(error))})", _LATER)]
    except spf_record.SpfError as error:
        return [problem("spf", f"{error}: it fails for everybody", "merge them into one")]
    if selected is None:
        return [problem("spf", "no record", f'publish {sender.domain}. IN TXT "{suggestion(sender.leavings)}"')]
    try:
        record = spf_record.parse(selected)
    except spf_record.SpfError as error:
        return [problem("spf", f"{error}: it fails for everybody: {shown(selected)}", "correct the record")]
    return list(of_record(record, selected))


def of_record(record: spf_record.Record, octets: bytes) -> Sequence[Finding]:
    """Judge what a record says of those whom it does not name."""
    last = next((each.qualifier for each in record.mechanisms if each.name == "all"), "")
    if last == "+":
        return [problem("spf", f"allows everybody to send for the domain: {shown(octets)}", "end it with ~all or -all")]
    if last in ("", "?") and not record.redirect:
        return [warning("spf", f"says nothing of other senders: {shown(octets)}", "end it with ~all or -all")]
    return [ok("spf", shown(octets))]


def suggestion(leavings: Sequence[Leaving]) -> str:
    """Write the record that allows these addresses."""
    return " ".join(["v=spf1", *(map(_ip, leavings) if leavings else ["ip4:ADDRESS"]), "~all"])


def _ip(leaving: Leaving) -> str:
    return f"ip6:{leaving.address}" if ":" in leaving.address else f"ip4:{leaving.address}"


async def _check(domain: str, leaving: Leaving, resolver: Resolver) -> Finding:
    address = ipaddress.ip_address(leaving.address)
    return of_result(leaving, await check_host(address, f"postmaster@{domain}", leaving.hostname, resolver))


def of_result(leaving: Leaving, checked: Checked) -> Finding:
    """Judge what SPF says of an address of ours."""
    about = f"spf {leaving.address}"
    if checked.result is Spf.PASS:
        if checked.lookups >= LOOKUPS - 1:
            said = f"passes, after {checked.lookups} of {LOOKUPS} look-ups"
            return warning(about, said, "name networks instead of include: one look-up more and it fails for everybody")
        return ok(about, "passes")
    if checked.result is Spf.TEMPERROR:
        return warning(about, shown(checked.why), _LATER)
    if checked.result is Spf.PERMERROR:
        return problem(about, f"{shown(checked.why)}: it fails for everybody", "correct the record that is named")
    advice = f"add {_ip(leaving)} to the record, before its all"
    if checked.result is Spf.FAIL:
        return problem(about, "fails: receivers are told to refuse it", advice)
    return warning(about, f"does not pass ({checked.result})", advice)


async def of_dkim(sender: Sender, resolver: Resolver) -> list[Finding]:
    """Check that each key that signs is the one in the DNS (RFC 6376)."""
    registered = sender.registered
    if not registered.selectors:
        advice = f"fairlead dkim create {registered.name} --selector s1, and publish what it prints"
        return [problem("dkim", "no key: mail goes unsigned", advice)]
    return list(await asyncio.gather(*(_selector(registered, each, resolver) for each in registered.selectors)))


async def _selector(registered: Domain, key: Selector, resolver: Resolver) -> Finding:
    try:
        texts = (await resolver.texts(dkim_keys.name_of(registered.name, key))).texts
    except NoAnswer as error:
        return warning(f"dkim {key.name}", f"no answer from the DNS ({shown(str(error))})", _LATER)
    return of_key(registered.name, key, texts)


def of_key(domain: str, key: Selector, texts: Sequence[bytes]) -> Finding:
    """Judge what the DNS has for a key: the words for a difference are those of `fairlead dkim check`."""
    about = f"dkim {key.name}"
    difference = differs(texts, key.dns_value)
    if key.state is State.RETIRED:
        return ok(about, f"retired; what the DNS has for it: {difference or 'its key'} (fairlead dkim list {domain})")
    if not difference:
        if "y" in tags_of(texts[0]).get("t", "").replace(" ", "").split(":"):  # RFC 6376 3.6.1
            return warning(about, "in test mode (t=y): receivers may ignore it", "remove t=y from the record")
        return ok(about, f"published, and {_STATES[key.state]}")
    advice = f"publish what fairlead dkim create {domain} --selector {key.name} prints"
    if key.state is State.PENDING:
        return warning(about, f"does not sign, because the DNS does not show it: {difference}", advice)
    return problem(about, f"signs, and receivers cannot verify it: {difference}", advice)


_STATES = {State.ACTIVE: "it signs", State.PENDING: "it will sign when that has been seen for a while"}


async def of_dmarc(sender: Sender, resolver: Resolver) -> list[Finding]:
    """Check the DMARC record that holds for the domain, and whether what we authenticate stands for it (RFC 7489)."""
    top = dmarc.organizational(sender.domain)
    try:
        for name in dict.fromkeys((sender.domain, top)):  # RFC 7489 6.6.3
            octets = dmarc.select((await resolver.texts(f"_dmarc.{name}")).texts)
            if octets is not None:
                record = dmarc.parse(octets)
                return [_policy(record, octets, below=name != sender.domain), alignment(sender, record)]
    except NoAnswer as error:
        return [warning("dmarc", f"no answer from the DNS ({shown(str(error))})", _LATER)]
    except DmarcError as error:
        return [problem("dmarc", f"{error}: receivers ignore it", f"correct the record of _dmarc.{name}")]
    advice = f'publish _dmarc.{top}. IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@{top}"'
    return [warning("dmarc", "no record: some receivers refuse bulk mail for that", advice)]


def _policy(record: Dmarc, octets: bytes, *, below: bool) -> Finding:
    policy = record.subdomains if below else record.policy
    if policy == "none":
        said = f"asks receivers for nothing (p=none): {shown(octets)}"
        return ok("dmarc", said) if record.rua else warning("dmarc", said, "add rua=mailto:… to hear who sends as you")
    return ok("dmarc", shown(octets))


def alignment(sender: Sender, record: Dmarc) -> Finding:
    """Judge whether the signing domain stands for the From domain."""
    signing = sender.registered.name
    if not sender.registered.selectors:
        return warning("alignment", "by SPF alone, which forwarding breaks", "sign with DKIM")
    if dmarc.aligned(signing, sender.domain, record.dkim):
        return ok("alignment", f"signatures by {signing} stand for {sender.domain} ({record.dkim})")
    advice = f"register it (fairlead domains add {sender.domain}) with a key of its own, or publish adkim=r"
    return problem("alignment", f"signatures by {signing} do not stand for {sender.domain} ({record.dkim})", advice)


async def return_path(sender: Sender, resolver: Resolver) -> list[Finding]:
    """Check that bounces to the domain have somewhere to go (RFC 5321 5.1)."""
    found = await site_of(sender.domain, resolver, "", _SMTP)
    if found is NoWay.DNS:
        return [warning("return path", "no answer from the DNS", _LATER)]
    if isinstance(found, NoWay):
        said = f"the domain takes no mail ({found}): bounces are lost, and receivers may refuse what it sends"
        return [problem("return path", said, f"give {sender.domain} an MX record")]
    return [ok("return path", hosts_of(found))]
