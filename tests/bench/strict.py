"""Recipients whose domain asks for TLS: an enforced MTA-STS policy (RFC 8461), and a sink with a good certificate.

The laboratory's DNS and policy host serve them, on our own loop. A relay asks each of them once, before what is
measured.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from mta.clock import SystemClock
from mta.config import HostPort
from mta.lab.ca import PrivateCa
from mta.lab.dns import DnsServer, Zone
from mta.lab.policy_host import PolicyHost
from tests.bench.load import destination
from tests.bench.orders import Malfunction
from tests.bench.sink import Sink
from tests.interop.peers import disk_directory

_MX = "mx.away.test"
_DAY = 86_400  # seconds, in which nobody asks the DNS again
_POLICY = f"version: STSv1\nmode: enforce\nmx: {_MX}\nmax_age: {_DAY}\n"


class Strict(NamedTuple):
    """What a relay has to know to get there, and the policy host."""

    settings: dict[str, object]
    policies: PolicyHost

    def look_at(self) -> None:
        """Malfunction unless somebody has the policy, and has asked for it once."""
        requests = self.policies.requests[destination(0, 1)]
        if requests != 1:
            raise Malfunction(f"the MTA-STS policy was fetched {requests} times, wanted: once")


@asynccontextmanager
async def strict(sink: Sink) -> AsyncIterator[Strict]:
    """Serve the domain that mail to one destination is for."""
    with disk_directory("bench-strict") as directory:
        ca = PrivateCa(directory / "tls")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*ca.issue(_MX))
        mx = await sink.offer_starttls(context)
        zone, policies = Zone(), PolicyHost(ca, SystemClock())
        dns = DnsServer(zone)
        await dns.start()
        await policies.start()
        _publish(zone, mx, policies)
        settings: dict[str, object] = {
            "dns": {"servers": [str(dns.address)]},
            "sts": {"port": policies.address.port},
            "delivery": {"port": mx.port, "allow_private_targets": True, "ca_file": str(ca.ca_file)},
        }
        try:
            yield Strict(settings, policies)
        finally:
            await policies.close()
            await dns.close()


def _publish(zone: Zone, mx: HostPort, policies: PolicyHost) -> None:
    domain = destination(0, 1)
    zone.set(domain, "MX", f"10 {_MX}.", ttl=_DAY)
    zone.set(_MX, "A", mx.host, ttl=_DAY)
    zone.set(f"_mta-sts.{domain}", "TXT", '"v=STSv1; id=1;"', ttl=_DAY)
    zone.set(f"mta-sts.{domain}", "A", policies.address.host, ttl=_DAY)
    policies.put(domain, _POLICY)
