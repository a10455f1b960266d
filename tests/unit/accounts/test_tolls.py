"""Tolls: what they cost, under which names."""

from mta.accounts.tolls import Rate, rate_of, tolls_of
from mta.spool.interface import Toll


def test_a_rate_is_a_message_each_interval_and_a_hundredth_at_once():
    assert [(each.interval, each.burst) for each in (Rate(1200, 60), Rate(99, 60), Rate(1, 3600))] == [
        (0.05, 12),
        (60 / 99, 1),
        (3600.0, 1),
    ]


def test_no_rate_is_none():
    assert rate_of(0, 60) is rate_of(10, 0) is rate_of(0, 0) is None
    assert rate_of(10, 60) == Rate(10, 60)


def test_keys_and_tenants_of_one_name_are_apart_and_the_key_comes_first():
    wide, narrow = Rate(1000, 10), Rate(60, 60)
    assert tolls_of("same", narrow, "same", wide, 3) == (
        Toll("key\0same", 1.0, 1, 3),
        Toll("tenant\0same", 0.01, 10, 3),
    )
    assert tolls_of("k", None, "t", wide, 1) == (Toll("tenant\0t", 0.01, 10, 1),)
    assert tolls_of("k", None, "t", None, 1) == ()
