"""Who takes part in the benchmark, each set up as gave its best, and with its own ways of making mail durable."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal, NamedTuple

from mta.config import HostPort
from tests.bench.haraka import haraka
from tests.bench.load import DOMAIN
from tests.interop.peers import disk_directory, postfix, signing_milter
from tests.interop.processes import free_ports
from tests.interop.relay import ROLES, Relay

Contest = Literal["hold", "relay", "signed", "sts"]
_IN_CLEAR = "Fairlead in the clear"
RIVALS: dict[Contest, str] = {
    "hold": "Postfix", "relay": "Postfix", "signed": "Postfix with OpenDKIM", "sts": _IN_CLEAR,
}  # fmt: skip
_TENANT = "bench"


class Server(NamedTuple):
    """One who takes part, and the processes that do its work.

    Its mail is signed where there is a DKIM `record`, and arrives over TLS where it is `encrypted`.
    """

    name: str
    address: HostPort
    processes: tuple[int, ...]
    record: str = ""
    http: HostPort | None = None
    key: str = ""
    encrypted: bool = False


def servers(
    contest: Contest, sink: HostPort, *, with_haraka: bool, strict: Mapping[str, object] | None = None
) -> Sequence[AbstractContextManager[Server]]:
    """Say who takes part: none of them runs yet. `strict` is how recipients are found who ask for TLS."""
    if strict is not None:
        return [fairlead(sink, strict=strict), fairlead(sink, name=_IN_CLEAR)]
    holds, signs = contest == "hold", contest == "signed"
    taking_part = [fairlead(sink, holds=holds, signs=signs), _postfix(sink, holds=holds, signs=signs)]
    if with_haraka:
        taking_part.append(_haraka(sink, holds=holds, signs=signs))
    return taking_part


@contextmanager
def fairlead(
    sink: HostPort,
    *,
    name: str = "Fairlead",
    holds: bool = False,
    signs: bool = False,
    strict: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    """Run Fairlead as it is by default: all roles, or all but delivery where mail is to wait.

    But one client may have as many connections as there may be at all, as with the others. With `strict` mail goes
    where its domain says, otherwise to the sink by a route.
    """
    smtp, http = (HostPort(host="127.0.0.1", port=port) for port in free_ports(2))
    listener = {"address": str(smtp), "kind": "relay", "networks": ["127.0.0.0/8"], "tenant": _TENANT}
    with disk_directory("bench") as directory:
        settings = {
            "hostname": "relay.test",
            "state_dir": str(directory / "state"),
            "listeners": [listener],
            "http": {"address": str(http)},
            "limits": {"connections_per_client": 1000},
            **(strict or {"routes": [{"domains": ["*"], "relay": str(sink)}]}),
        }
        relay = Relay(directory, settings)
        relay.tell("tenants", "create", _TENANT)
        key = relay.tell("keys", "create", "--tenant", _TENANT, "--scope", "send")["key"]
        record = ""
        if signs:
            relay.tell("domains", "add", DOMAIN, "--tenant", _TENANT)
            record = relay.tell("dkim", "create", DOMAIN, "--selector", "s1", "--algorithm", "rsa2048")["value"]
        roles = [each for each in ROLES if each != "delivery"] if holds else ROLES
        with relay.serving(roles) as processes:
            yield Server(name, smtp, processes, record, http, key, encrypted=strict is not None)


@contextmanager
def _postfix(sink: HostPort, *, holds: bool, signs: bool) -> Iterator[Server]:
    """Run Postfix; where mail is to wait it is put on hold, which costs no delivery."""
    next_hop = f"[{sink.host}]:{sink.port}"
    settings = {
        "relayhost": next_hop,
        "smtp_dns_support_level": "disabled",
        "default_destination_concurrency_limit": "50",
        "initial_destination_concurrency": "20",
        "default_destination_recipient_limit": "1",
        "smtp_connection_cache_destinations": next_hop,
        "smtpd_client_connection_count_limit": "0",
        "smtpd_client_connection_rate_limit": "0",
        "smtpd_client_message_rate_limit": "0",
    }
    if holds:
        settings["smtpd_client_restrictions"] = "check_client_access static:HOLD"
    with ExitStack() as stack:
        processes, record = [], ""
        if signs:
            milter = stack.enter_context(signing_milter(DOMAIN))
            settings["smtpd_milters"] = milter.address
            processes.append(milter.pid)
            record = milter.record
        address = HostPort(host="127.0.0.1", port=free_ports(1)[0])
        processes.append(stack.enter_context(postfix(address, settings)).pid)
        yield Server("Postfix with OpenDKIM" if signs else "Postfix", address, tuple(processes), record)


@contextmanager
def _haraka(sink: HostPort, *, holds: bool, signs: bool) -> Iterator[Server]:
    address = HostPort(host="127.0.0.1", port=free_ports(1)[0])
    with haraka(address, sink, holds=holds, signs=DOMAIN if signs else "") as (process, record):
        yield Server("Haraka", address, (process,), record)
