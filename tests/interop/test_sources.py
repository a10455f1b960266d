"""Sources with the relay as its users run it: who leaves from where, parked and unparked by command."""

import datetime as dt
import smtplib
from collections import Counter

import yaml

from mta.lab.laboratory import RelayPorts, lab_config
from tests.interop.laboratory import LaboratoryThread, laboratory
from tests.interop.peers import disk_directory
from tests.interop.processes import free_ports
from tests.interop.relay import Relay

_WAITING = 30.0  # seconds
SOURCES = [
    {"name": "a", "address": "127.0.0.2", "hostname": "a.relay.test"},
    {"name": "b", "address": "127.0.0.3", "hostname": "b.relay.test"},
    {"name": "away", "address": "192.0.2.9"},
]
NEW = {"name": "new", "address": "127.0.0.4", "hostname": "new.relay.test"}


def send(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(count):
            client.sendmail("app@origin.test", [f"ok@rcpt{number % 7}.test"], b"Subject: x\r\n\r\nx\r\n")


def left_from(lab: LaboratoryThread, total: int) -> Counter[tuple[str, str]]:
    """Wait for so many messages in all; count those since the last time by address and name of the client."""
    lab.run(lab.lab.wait_for(total, _WAITING))
    found = Counter((each.peer.rpartition(":")[0], each.ehlo) for each in lab.lab.captured)
    lab.lab.captured.clear()
    return found


def test_pools_warm_up_and_parking() -> None:
    with disk_directory("sources") as directory, laboratory(directory / "lab") as lab:
        *four, for_other = free_ports(5)
        ports = RelayPorts(*four)
        settings = yaml.safe_load(lab_config(lab.lab, ports, "acme"))
        other = settings["listeners"][0] | {"address": f"127.0.0.1:{for_other}", "tenant": "other"}
        yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        new = NEW | {"warm_up": {"started_on": yesterday, "plan": [60, 60, 60]}}
        settings |= {"state_dir": str(directory / "state"), "listeners": [*settings["listeners"], other]}
        settings |= {
            "sources": [*SOURCES, new],
            "pools": {"default": {"new": 9, "a": 1}, "own": {"a": 3, "b": 1, "away": 5}},
        }
        relay = Relay(directory, settings)
        relay.tell("tenants", "create", "acme", "--pool", "own")
        relay.tell("tenants", "create", "other")
        provider = f"mx1.lab.test:{lab.lab.mx_port}"
        with relay.serving():
            send(ports.relay, 100)
            shares = left_from(lab, 100)
            assert shares.keys() == {("127.0.0.2", "a.relay.test"), ("127.0.0.3", "b.relay.test")}
            assert 60 <= shares["127.0.0.2", "a.relay.test"] <= 90  # 75, but for when one's connections are all in use
            relay.tell("sources", "park", "a", provider)
            send(ports.relay, 10)
            assert left_from(lab, 110) == {("127.0.0.3", "b.relay.test"): 10}
            relay.tell("sources", "unpark", "a")
            send(for_other, 100)
            assert left_from(lab, 210) == {("127.0.0.4", "new.relay.test"): 60, ("127.0.0.2", "a.relay.test"): 40}
            shown = {each["source"]: each for each in relay.ask("sources", "list")}
        assert shown["new"]["warm_up"]["today"] == {"other": 60}
        assert shown["away"]["trouble"] == "192.0.2.9: not an address of this machine"
        assert "source=away address=192.0.2.9 error='not an address of this machine'" in relay.log.read_text()
