"""What a domain asks of those who send to it: its MTA-STS policy, and where reports go (RFC 8461, RFC 8460 3).

The policy is fetched now, whatever delivery remembers: what is looked for is what a stranger would find.
"""

from mta.config import Sts
from mta.delivery import sts
from mta.delivery.https import FetchError, Https, Place
from mta.delivery.policy import StsPolicy
from mta.delivery.resolver import NoAnswer, Resolver
from mta.doctor.findings import Finding, listed, ok, problem, shown, warning
from mta.doctor.receiver import Way
from mta.mail.tls_report_record import endpoints, record_name

_TELL = "tell whoever runs the domain"
_LATER = "try again later"
_DAY = 86_400
_SECONDS = 20.0  # for a fetch, where somebody sits and waits


async def of_sts(
    domain: str, resolver: Resolver, https: Https, settings: Sts, now: float
) -> tuple[Finding, StsPolicy | None]:
    """Look up and fetch the MTA-STS policy of a domain; None if there is none that could be used."""
    try:
        texts = (await resolver.texts(f"_mta-sts.{domain}")).texts
    except NoAnswer as error:
        return warning("mta-sts", f"no answer from the DNS ({shown(str(error))})", _LATER), None
    announced = sts.record_id(texts)
    if announced is None:
        ours = [each for each in texts if each.startswith(b"v=STSv1")]
        if ours:
            said = f"its record announces nothing: {listed(map(shown, ours), 2)}"
            return warning("mta-sts", said, f"{_TELL}: one record, v=STSv1; id=…;"), None
        return ok("mta-sts", "none: whoever can change the way of mail can read it, unless DANE is there"), None
    place = Place(f"mta-sts.{domain}", "/.well-known/mta-sts.txt", settings.port)
    try:
        body = await https.get(place, "text/plain", min(settings.timeout, _SECONDS))
        policy = sts.parse(body, domain, announced, now)
    except (FetchError, sts.StsError) as error:
        said = f"announced, and its policy cannot be had: {shown(str(error))} ({error.failure})"
        return warning("mta-sts", said, f"{_TELL}; a policy that delivery remembers applies until it expires"), None
    return of_policy(policy), policy


def of_policy(policy: StsPolicy) -> Finding:
    """Judge a policy as it is."""
    days = policy.max_age / _DAY
    said = f"mode {policy.mode}, {days:g} days, for {listed(policy.mx) or 'no host'}"
    if policy.mode == "enforce" and policy.max_age < _DAY:
        # RFC 8461 3.2: weeks; whoever can hold off fetches for as long as it lasts gets rid of it
        return warning("mta-sts", said, f"{_TELL}: max_age should be weeks")
    return ok("mta-sts", said)


def of_hosts(policy: StsPolicy | None, way: Way) -> list[Finding]:
    """Judge whether a policy lists the hosts that mail would go to (RFC 8461 4.1)."""
    if policy is None or policy.mode == "none" or (way.site is not None and way.site.routed):
        return []
    missing = [each.hop.host for each in way.hosts if not sts.matches(policy, each.hop.host)]
    if not missing:
        return [ok("mta-sts hosts", "each host is listed")]
    said = f"not listed by the policy: {listed(missing)}"
    if policy.mode == "testing":
        return [warning("mta-sts hosts", f"{said}; in testing mode mail goes there all the same", _TELL)]
    if len(missing) == len(way.hosts):
        return [problem("mta-sts hosts", f"{said}: no host is left, and nothing is delivered", _TELL)]
    return [warning("mta-sts hosts", f"{said}: passed over", _TELL)]


async def of_tlsrpt(domain: str, resolver: Resolver) -> Finding:
    """Look up where a domain wants reports on TLS."""
    try:
        texts = (await resolver.texts(record_name(domain))).texts
    except NoAnswer as error:
        return warning("tlsrpt", f"no answer from the DNS ({shown(str(error))})", _LATER)
    ours = [each for each in texts if each.startswith(b"v=TLSRPT")]
    found = endpoints(texts)
    if found:
        return ok("tlsrpt", f"reports go to {listed(each.uri for each in found)}")
    if ours:
        said = f"a record that nobody can send reports by: {listed(map(shown, ours), 2)}"
        return warning("tlsrpt", said, f"{_TELL}: one record, v=TLSRPTv1; rua=mailto:…")
    return ok("tlsrpt", "none: nobody tells it when TLS fails")
