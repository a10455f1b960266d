"""MTA-STS to a Postfix behind a policy host: refused while its certificate is another host's, and taken again after."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import yaml

from mta.config import HostPort
from mta.lab.laboratory import RelayPorts, lab_config
from mta.lab.policy_host import Hosting
from tests.interop.laboratory import LaboratoryThread, laboratory
from tests.interop.peers import disk_directory, receiving_postfix
from tests.interop.processes import free_ports
from tests.interop.relay import Relay
from tests.interop.sender import Sender

ADDRESS = "127.0.0.5"  # of Postfix, under each of its names; all MXs share a port
ENFORCED = ("strict.test", "gone.test")
TESTED = "trying.test"


class Place(NamedTuple):
    """The laboratory with its policies, and a relay in it that is not running."""

    lab: LaboratoryThread
    sender: Sender

    @contextmanager
    def postfix(self, *names: str) -> Iterator[None]:
        """Run Postfix with a certificate for hosts."""
        lab = self.lab.lab
        with receiving_postfix(HostPort(host=ADDRESS, port=lab.mx_port), names[0], lab.ca.issue(*names)):
            yield

    def delivered(self, recipient: str) -> tuple[str, str]:
        """Wait until a message is delivered; give the policy, and how far the host was verified."""
        event = self.sender.heard(recipient, "delivered")
        return event["policy"], event["tls"].rpartition(":")[2]

    def reported(self, domain: str) -> dict[str, Any]:
        """Say what stands in today's report to a domain, of its one policy."""
        (policy,) = self.sender.relay.tell("tls", "report", domain)["policies"]
        assert policy["policy"]["policy-type"] == "sts"
        return dict(policy)


@pytest.fixture
def place() -> Iterator[Place]:
    with disk_directory("sts") as directory, laboratory(directory / "lab") as lab:
        ports = RelayPorts(*free_ports(4))
        settings = yaml.safe_load(lab_config(lab.lab, ports, "acme"))
        settings |= {
            "state_dir": str(directory / "state"),
            "retry": {"intervals": [300], "lifetime": 600, "delay_notice": 500},
        }
        relay = Relay(directory, settings)
        relay.tell("tenants", "create", "acme")
        for domain in (*ENFORCED, TESTED):
            mode = "testing" if domain == TESTED else "enforce"
            lab.lab.publish_policy(domain, f"version: STSv1\nmode: {mode}\nmx: *.{domain}\nmax_age: 86400\n")
            lab.lab.zone.set(domain, "MX", f"10 mx.{domain}.")
            lab.lab.zone.set(f"mx.{domain}", "A", ADDRESS)
        yield Place(lab, Sender(relay, ports.relay))


def test_sts_to_postfix_while_its_certificate_is_its_own(place: Place) -> None:
    relay, send = place.sender.relay, place.sender.send
    good = [f"mx.{each}" for each in ENFORCED]
    with relay.serving(), place.postfix(*good):
        assert [place.delivered(send(each)) for each in ENFORCED] == [("sts enforce", "verified")] * 2
    # who can take the record and the policy away does not get the mail, after a restart either
    place.lab.lab.zone.set("_mta-sts.gone.test", "TXT")
    place.lab.lab.policy_host.put("gone.test", "", Hosting.ABSENT)
    with relay.serving():
        with place.postfix("mx.other.test"):
            waiting = [send(each) for each in ENFORCED]
            for domain, recipient in zip(ENFORCED, waiting, strict=True):
                refused = place.sender.heard(recipient, "deferred")
                assert (refused["policy"], refused["status"]) == ("sts enforce", "4.7.5")
                mismatch = f"certificate of mx.{domain} is for mx.other.test"
                assert f"MTA-STS policy of {domain}: {mismatch}" in refused["reply"]
            # a policy that only tests lets it through, and its domain is told
            assert place.delivered(send(TESTED)) == ("sts testing", "unverified")
        with place.postfix(*good):
            for domain in ENFORCED:
                relay.ask("queue", "retry", "--where", f"domain={domain}", "--yes")
            assert [place.delivered(each) for each in waiting] == [("sts enforce", "verified")] * 2
        for domain in ENFORCED:
            assert counted(place.reported(domain)) == (2, 1)
        tested = place.reported(TESTED)
    assert counted(tested) == (0, 1)
    (details,) = tested["failure-details"]
    assert details["result-type"] == "certificate-host-mismatch"
    assert (details["receiving-mx-hostname"], details["receiving-ip"]) == ("mx.trying.test", ADDRESS)
    assert place.lab.lab.zone.asked("_mta-sts.gone.test", "TXT") >= 2


def counted(policy: dict[str, Any]) -> tuple[int, int]:
    """Say how many sessions went well, and how many failed."""
    summary = policy["summary"]
    return summary["total-successful-session-count"], summary["total-failure-session-count"]
