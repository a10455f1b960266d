"""Reports of TLS sessions put together: what the events role sends, and delivery's ways into the world for it."""

import asyncio
from collections.abc import Sequence

from mta.clock import Clock
from mta.config import Config
from mta.delivery.https import FetchError, Https, Place
from mta.delivery.resolver import NoAnswer, Resolver
from mta.events.tls_reports import NotNow, TlsReports, World
from mta.mail.tls_report import MEDIA_TYPE
from mta.mail.tls_report_record import Endpoint
from mta.queue.queue import Queue
from mta.spool.interface import Spool

_POST_TIMEOUT = 60.0  # seconds


class Reporting:
    """Sends reports with a resolver of its own."""

    def __init__(self, config: Config, spool: Spool, queue: Queue, clock: Clock) -> None:
        self._resolver = Resolver(config.dns, clock)
        private = config.delivery.allow_private_targets
        self._https = Https(self._resolver, config.delivery.ca_file, private=private)
        self._reports = TlsReports(config, spool, queue, clock, World(self._texts, self._post))

    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, until `stop` is set."""
        await self._reports.run(stop)

    async def close(self) -> None:
        """Give up what is being asked."""
        await self._resolver.close()

    async def _texts(self, name: str) -> Sequence[bytes]:
        try:
            return (await self._resolver.texts(name)).texts
        except NoAnswer as error:
            raise NotNow(f"the DNS did not answer: {error}") from None

    async def _post(self, endpoint: Endpoint, body: bytes) -> int:
        try:
            place = Place(endpoint.host, endpoint.path, endpoint.port)
            return await self._https.post(place, body, MEDIA_TYPE, _POST_TIMEOUT)
        except FetchError as error:
            raise NotNow(str(error)) from None
