"""The relay in its laboratory, with a tenant, a domain that is signed, and a way in of every kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import yaml

from mta.lab.laboratory import RelayPorts, lab_config
from tests.interop.laboratory import LaboratoryThread, laboratory
from tests.interop.peers import disk_directory
from tests.interop.processes import free_ports
from tests.interop.relay import Relay

TENANT = "acme"
DOMAIN = "news.test"  # of the tenant, signed with both algorithms


class Installation(NamedTuple):
    """Everything that runs, and how to get in."""

    lab: LaboratoryThread
    relay: Relay
    ports: RelayPorts
    relay_starttls: int  # port of a relay listener that offers STARTTLS
    relay_for_others: int  # port of one that trusts a network in which we are not
    api_key: str
    user: str
    password: str
    records: dict[str, str]  # of the DKIM keys: TXT by name


@contextmanager
def installation() -> Iterator[Installation]:
    """Run the laboratory and the relay."""
    with disk_directory("interop") as directory, laboratory(directory / "lab") as lab:
        *four, relay_starttls, relay_for_others = free_ports(6)
        ports = RelayPorts(*four)
        settings = yaml.safe_load(lab_config(lab.lab, ports, TENANT))
        relay_listener = settings["listeners"][0]
        settings["state_dir"] = str(directory / "state")
        settings["listeners"] += [
            relay_listener | {"address": f"127.0.0.1:{relay_starttls}", "tls": "starttls"},
            relay_listener | {"address": f"127.0.0.1:{relay_for_others}", "networks": ["192.0.2.0/24"]},
            {"address": f"unix:{directory}/smtp.sock", "kind": "relay", "tenant": TENANT},
        ]
        relay = Relay(directory, settings)
        relay.tell("tenants", "create", TENANT)
        relay.tell("domains", "add", DOMAIN, "--tenant", TENANT)
        records = {}
        for algorithm in ("rsa2048", "ed25519"):
            record = relay.tell("dkim", "create", DOMAIN, "--selector", algorithm, "--algorithm", algorithm)
            records[record["name"]] = record["value"]
            lab.lab.zone.set_txt(record["name"], record["value"])
        key = relay.tell("keys", "create", "--tenant", TENANT, "--scope", "send")["key"]
        credential = relay.tell("credentials", "create", "--tenant", TENANT, "--user", "printer")
        with relay.serving():
            yield Installation(
                lab=lab,
                relay=relay,
                ports=ports,
                relay_starttls=relay_starttls,
                relay_for_others=relay_for_others,
                api_key=key,
                user=credential["user"],
                password=credential["password"],
                records=records,
            )
