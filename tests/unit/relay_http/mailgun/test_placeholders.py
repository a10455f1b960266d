"""Placeholders in texts, filled for each recipient."""

import pytest

from mta.content.compose import Mailbox
from relay_http.mailgun.placeholders import MARKS_LIMIT, Template, values_of
from relay_http.problem import Refusal

VALUES = values_of(Mailbox("ann@example.test", "Ann B. Doe"), {"name": "Ann", "v:order": "7", "p": "%recipient.name%"})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain 100%", "plain 100%"),
        ("%recipient.name%", "Ann"),
        ("Hi %recipient.name%, %recipient.v:order%!", "Hi Ann, 7!"),
        ("%recipient.name%%recipient.name%", "AnnAnn"),
        ("%recipient%", "Ann B. Doe <ann@example.test>"),
        (
            "%recipient_email% %recipient_fname%/%recipient_lname%/%recipient_name%",
            "ann@example.test Ann/B. Doe/Ann B. Doe",
        ),
        ("%recipient.unknown% stays", "%recipient.unknown% stays"),
        ("%recipients% %recipient %recipient.name", "%recipients% %recipient %recipient.name"),
        ("100%recipient.name%", "100Ann"),
        ("%recipient.p%", "%recipient.name%"),
        ("%recipient x" * 5, "%recipient x" * 5),
        ("%recipientx%recipient.name%", "%recipientxAnn"),
        ("", ""),
    ],
)
def test_filling(text: str, filled: str) -> None:
    template = Template(text)
    assert template.fill(VALUES) == filled
    assert template.size(VALUES) >= len(filled)


def test_only_what_has_a_placeholder_is_not_fixed() -> None:
    assert [Template(each).fixed for each in ("", "%", "%recipients%", "%recipient.a%", "%recipient%")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_too_many_are_refused() -> None:
    assert not Template("%recipient.a%" * MARKS_LIMIT).fixed
    with pytest.raises(Refusal, match="10000"):
        Template("%recipient.a%" * (MARKS_LIMIT + 1))


def test_a_key_over_the_limit_is_text() -> None:
    assert Template(f"%recipient.{'x' * 300}%").fixed
