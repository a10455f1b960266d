"""What would become of a message, as the delivery role sees it: signature, alignment, next hops and their TLS.

It goes by what deliveries go by: their plans, policies and memory. The DNS is asked where they would; nothing is
dialled, and nothing is noted for reports.
"""

import asyncio
import ipaddress

from mta.accounts.tenants import pool_of
from mta.config import DEFAULT_POOL, Config
from mta.control import ControlError
from mta.delivery.plans import Plans
from mta.delivery.policy import Level, Needs, Refusal
from mta.delivery.protection import Protection
from mta.delivery.resolver import NoAnswer
from mta.delivery.signatory import SigningError
from mta.delivery.signing import Signer
from mta.delivery.trouble import NoWay
from mta.doctor import dmarc
from mta.doctor.dmarc import Dmarc, DmarcError
from mta.doctor.hosts import Expected, expected_of
from mta.doctor.ourselves import leavings
from mta.doctor.receiver import Host as HopFound
from mta.doctor.receiver import Way
from mta.doctor.spf import check_host
from mta.queue.prospect import DOMAINS, Alignment, Asked, Destination, Host, Prospect, Signature, SourceSpf
from mta.spool.interface import Spool

_SECONDS = 8.0  # less than who asks waits
_AT_ONCE = 4
_HOSTS = 5  # of a destination that are told of
_SOURCES = 4  # addresses that SPF is asked about


class Foresight:
    """Answers for the delivery role, for a few at a time: whoever asks much waits, and deliveries do not."""

    def __init__(self, config: Config, spool: Spool, plans: Plans, protection: Protection, signer: Signer) -> None:
        self._config = config
        self._spool = spool
        self._plans = plans
        self._protection = protection
        self._signer = signer
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def prospect(self, asked: Asked) -> Prospect:
        """Look at all there is; ControlError when that takes too long."""
        try:
            async with asyncio.timeout(_SECONDS), self._turn:
                signature = await self._signature(asked)
                alignment = await self._alignment(asked, signature)
                needs = await self._needs(asked)
                told = asked.domains[:DOMAINS]
                found = await asyncio.gather(*(self._destination(each, needs) for each in told))
        except TimeoutError:
            raise ControlError(f"the DNS took longer than {_SECONDS:g} s") from None
        return Prospect(signature, alignment, tuple(found), len(asked.domains) - len(told))

    async def _needs(self, asked: Asked) -> Needs:
        needs = await self._protection.needs_of_tenant(asked.tenant)
        return Needs(least=needs.least, required=asked.tls_required)

    async def _signature(self, asked: Asked) -> Signature:
        if not asked.sign_domain:
            return Signature("", why=f"{asked.from_domain} is not registered")
        try:
            keys = await self._signer.keys_of(asked.sign_domain, asked.tenant)
        except SigningError as error:
            return Signature(asked.sign_domain, why=str(error))
        selectors = tuple([each.name for each in keys])
        return Signature(asked.sign_domain, selectors, "" if keys else f"no key for {asked.sign_domain}")

    async def _alignment(self, asked: Asked, signature: Signature) -> Alignment:
        try:
            # in a thread: the list of public suffixes is read when it is asked for first
            top = await asyncio.to_thread(dmarc.organizational, asked.from_domain)
            record, below = await self._dmarc(asked.from_domain, top)
        except NoAnswer as error:
            return Alignment(trouble=f"no answer from the DNS: {error}")
        except DmarcError as error:
            return Alignment(trouble=f"the DMARC record: {error}")
        by_dkim, by_spf = (record.dkim, record.spf) if record is not None else ("relaxed", "relaxed")
        policy = "" if record is None else record.subdomains if below else record.policy
        returned = asked.return_domain or self._config.hostname
        return Alignment(
            policy=policy,
            dkim_aligned=bool(signature.selectors) and dmarc.aligned(signature.domain, asked.from_domain, by_dkim),
            spf_aligned=dmarc.aligned(returned, asked.from_domain, by_spf),
            spf=await self._spf(asked.tenant, returned),
        )

    async def _dmarc(self, domain: str, top: str) -> tuple[Dmarc | None, bool]:
        """Find the record that holds for a domain, and whether it is that of the domain above (RFC 7489 6.6.3)."""
        for name in dict.fromkeys((domain, top)):
            octets = dmarc.select((await self._protection.resolver.texts(f"_dmarc.{name}")).texts)
            if octets is not None:
                return dmarc.parse(octets), name != domain
        return None, False

    async def _spf(self, tenant: str, domain: str) -> tuple[SourceSpf, ...]:
        sources = None
        if self._config.pools:
            pool = await pool_of(self._spool, tenant) or DEFAULT_POOL
            sources = tuple(self._config.pools.get(pool, self._config.pools[DEFAULT_POOL]))
        seen = [each for each in leavings(self._config, sources, ()) if each.seen][:_SOURCES]
        checks = [
            check_host(
                ipaddress.ip_address(each.address), f"postmaster@{domain}", each.hostname, self._protection.resolver
            )
            for each in seen
        ]
        found = await asyncio.gather(*checks)
        return tuple([SourceSpf(each.address, str(of.result)) for each, of in zip(seen, found, strict=True)])

    async def _destination(self, domain: str, needs: Needs) -> Destination:
        plan = await self._plans.plan(domain)
        if isinstance(plan, NoWay):
            return Destination(domain=domain, trouble=str(plan))
        site, policy, memory = plan.site, plan.standing.policy, self._protection.memory
        hops = site.hops[:_HOSTS]
        way = Way((), tuple([HopFound(each) for each in hops]), site.secure, site)
        remembered: dict[str, Level] = {f"{each.host}:{each.port}": memory.level(each.host, each.port) for each in hops}
        expected = await expected_of(domain, way, policy, remembered, self._protection.resolver, needs)
        return Destination(
            domain=domain,
            routed=site.routed,
            sts=policy.mode if policy is not None and not site.routed else "",
            hosts=tuple(map(_host, expected)),
        )


def _host(expected: Expected) -> Host:
    hop, demand = expected.host.hop, expected.demand
    if isinstance(demand, Refusal):
        return Host(hop.host, hop.port, by=demand.by, refused=demand.flaw.text)
    return Host(hop.host, hop.port, tls=demand.least.name.lower(), by=demand.by or demand.words)
