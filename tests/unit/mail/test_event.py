"""How events are shown."""

import json

from mta.mail.event import Event, EventType, event_json
from mta.mail.summary import FileShown, Summary


def test_a_summary_is_shown_as_an_object() -> None:
    files = (FileShown("a.pdf", "application/pdf", 3),)
    summary = Summary(subject="Grüße", from_="a@b.test", to="c@d.test", dialect="sendgrid", key="k", files=files)
    event = Event(id="m.0.1", type=EventType.ACCEPTED, at=1.0, tenant="t", message="m", summary=summary)
    shown = json.loads(json.dumps(event_json(event, 7)))
    assert shown["seq"] == 7
    assert shown["summary"] == {
        "subject": "Grüße",
        "from": "a@b.test",
        "to": "c@d.test",
        "dialect": "sendgrid",
        "key": "k",
        "files": [{"name": "a.pdf", "media_type": "application/pdf", "size": 3, "inline": False}],
    }
