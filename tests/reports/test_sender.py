"""Test whom a refused body names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from developer_telemetry.reports.parser import TEXT_LIMIT
from developer_telemetry.reports.privacy_filter import PrivacyRules
from developer_telemetry.reports.pseudonyms import DEVELOPER, HOST, Pseudonyms
from developer_telemetry.reports.sender import Sender, find_sender

PSEUDONYMS = Pseudonyms("an encryption secret as DevLake has it", 1)


@pytest.mark.parametrize(
    ("body", "sender"),
    [
        ('{"developer": "ann", "hostname": "laptop"}', Sender("ann", "laptop")),
        ('{"developer_id": "ann", "hostname": "laptop.local"}', Sender("ann", "laptop")),
        ('{"developer": " ann ", "developer_id": "bob"}', Sender("ann")),
        (b'{"developer": "ann"', Sender("ann")),
        ('{"developer": "a\\"n\\u006e", "hostname": "laptop",', Sender('a"nn', "laptop")),
        ('[{"developer": "ann", "hostname": "a"}, {"developer": "bob"}]', Sender("ann", "a")),
        ('{"developer": 7, "hostname": ["x"]}', Sender("7")),
        ("null", Sender()),
        (b"\xff\xfe", Sender()),
        ("", Sender()),
    ],
)
def test_a_refused_body_names_its_sender_as_far_as_it_can(body: object, sender: Sender) -> None:
    assert find_sender(None, body) == sender  # type: ignore[arg-type]


def test_names_are_pseudonyms_where_the_connection_has_them() -> None:
    found = find_sender(
        PrivacyRules(False, PSEUDONYMS), '{"developer": "ann", "hostname": "laptop"'
    )

    assert found == Sender(
        PSEUDONYMS.pseudonymize(DEVELOPER, "ann"), PSEUDONYMS.pseudonymize(HOST, "laptop")
    )


@given(st.one_of(st.text(), st.binary(), st.text().map(lambda text: f'{{"developer": "{text}"')))
def test_any_body_has_a_sender_that_can_be_stored(body: object) -> None:
    for name in find_sender(None, body):  # type: ignore[arg-type]
        name.encode()
        assert "\0" not in name
        assert len(name) <= TEXT_LIMIT
