"""What a schedule may be, when it is due, and what its misfire policy makes of missed due times."""

import time
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqservice.config import load
from mqservice.errors import ConfigError, InvalidSchedule
from mqservice.keys import valid_name
from mqservice.schedules import (
    CATCH_UP,
    GRACE_MS,
    Misfire,
    Schedule,
    due_times,
    every_s,
    latest_due,
    message_id,
    next_due,
    next_times,
    pending,
    valid_schedule,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOW = 1_800_000_000_000
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


def every(seconds: float, **others: Any) -> Schedule:
    return Schedule(name="s", queue="q", every=seconds, **others)


def cron(expression: str, tz: str = "UTC", **others: Any) -> Schedule:
    return Schedule(name="s", queue="q", cron=expression, tz=tz, **others)


def ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def local_times(schedule: Schedule, since: datetime, hours: float) -> list[str]:
    """Due times from `since` on, for so long, as the clock on the wall and its offset."""
    start, zone = ms(since), since.tzinfo
    dues = latest_due(schedule, start - 1, start + int(hours * HOUR), 1000)
    return [f"{datetime.fromtimestamp(due / 1000, zone):%d %H:%M %z}" for due in dues]


# Every


@pytest.mark.parametrize(
    ("period", "seconds"),
    [(1, 1.0), (2.5, 2.5), ("30", 30.0), ("30s", 30.0), ("5m", 300.0), ("1.5 h", 5400.0), ("1d", 86_400.0)],
)
def test_every_when_it_is_a_period_then_its_seconds(period: float | str, seconds: float) -> None:
    assert every_s(period) == seconds


@pytest.mark.parametrize(
    "period",
    [0.99, 0, -5, float("nan"), float("inf"), "", "m", "5 minutes", "1h30m", "1e3", "-5s", "0.5s", "٣s", "367d"],
)
def test_every_when_it_is_no_period_or_out_of_range_then_none(period: float | str) -> None:
    assert every_s(period) is None


def test_due_times_when_every_then_they_are_whole_multiples_since_the_epoch() -> None:
    assert list(islice(due_times(every(1.5), 10_000), 3)) == [10_500, 12_000, 13_500]
    assert next_due(every(60), 60_000) == 120_000


# Cron and its zone


def test_due_times_when_cron_has_six_fields_then_the_first_is_seconds() -> None:
    assert list(islice(due_times(cron("*/20 * * * * *"), 0), 3)) == [20_000, 40_000, 60_000]


def test_due_times_when_cron_has_a_zone_then_it_is_the_clock_there() -> None:
    assert next_times(cron("30 7 * * MON-FRI", "Asia/Shanghai"), ms(datetime(2026, 5, 1, tzinfo=UTC)))[:2] == [
        "2026-05-03T23:30:00.000Z",
        "2026-05-04T23:30:00.000Z",
    ]


# On 29 March 2026 at 02:00 the clocks of Berlin go forward to 03:00, on 25 October at 03:00 back to 02:00.


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * *", ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
        ("0,30 2 * * *", ["28 02:00 +0100", "28 02:30 +0100", "29 03:00 +0200", "30 02:00 +0200", "30 02:30 +0200"]),
        ("0 2,3 29 * *", ["29 03:00 +0200"]),
        ("30 2 29 3 *", ["29 03:00 +0200"]),
    ],
)
def test_due_times_when_a_time_of_the_day_is_skipped_then_due_once_at_the_end_of_the_gap(
    expression: str, expected: list[str]
) -> None:
    assert local_times(cron(expression, "Europe/Berlin"), datetime(2026, 3, 28, tzinfo=BERLIN), 72) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 * * * *", ["29 01:30 +0100", "29 03:30 +0200", "29 04:30 +0200"]),
        ("*/30 2 * * *", []),
        ("0 30 2 * * *", []),
    ],
)
def test_due_times_when_an_hour_is_skipped_then_others_are_not_due_in_it(expression: str, expected: list[str]) -> None:
    assert local_times(cron(expression, "Europe/Berlin"), datetime(2026, 3, 29, 1, tzinfo=BERLIN), 3) == expected


def test_due_times_when_a_time_of_the_day_is_repeated_then_due_the_first_time_only() -> None:
    start = datetime(2026, 10, 25, tzinfo=BERLIN)
    assert local_times(cron("30 2 * * *", "Europe/Berlin"), start, 23) == ["25 02:30 +0200"]


@pytest.mark.parametrize("expression", ["30 * * * *", "0 30 2 * * *"])
def test_due_times_when_an_hour_is_repeated_then_others_are_due_in_both(expression: str) -> None:
    start = datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN)
    assert local_times(cron(expression, "Europe/Berlin"), start, 2) == ["25 02:30 +0200", "25 02:30 +0100"]


def test_next_due_when_asked_within_the_repeated_hour_then_never_a_time_of_the_past() -> None:
    second_time = ms(datetime(2026, 10, 25, 2, 15, fold=1, tzinfo=BERLIN))
    due = next_due(cron("30 2 * * *", "Europe/Berlin"), second_time)
    assert due == ms(datetime(2026, 10, 26, 2, 30, tzinfo=BERLIN))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["30 2 * * *", "0,30 2,3 * * *", "*/15 * * * *", "15 * * * *", "0 */5 1-3 * * *", "0 0 * * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
    st.integers(0, 36 * HOUR),
)
def test_due_times_when_counted_from_different_moments_then_all_agree(
    expression: str, tz: str, since: datetime, later_ms: int
) -> None:
    schedule, start = cron(expression, tz), ms(since.replace(tzinfo=UTC))
    end = start + 48 * HOUR
    earlier = [due for due in latest_due(schedule, start, end, 10_000) if due > start + later_ms]
    assert latest_due(schedule, start + later_ms, end, 10_000) == earlier


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(0, 3 * HOUR), st.sampled_from(["*/7 * * * *", "1-9 * * * * *", "5 4 * * *"]))
def test_latest_due_when_there_are_more_then_exactly_the_last_of_all(
    most: int, length_ms: int, expression: str
) -> None:
    schedule = cron(expression)
    everything = list(takewhile(lambda due: due <= NOW + length_ms, due_times(schedule, NOW)))
    assert latest_due(schedule, NOW, NOW + length_ms, most) == everything[-most:]


def test_latest_due_when_a_year_of_seconds_was_missed_then_quickly_the_last_thousand() -> None:
    started = time.perf_counter()
    found = latest_due(cron("* * * * * *", "Europe/Berlin"), NOW - 365 * DAY, NOW, 1000)
    assert found == list(range(NOW - 999 * SECOND, NOW + 1, SECOND))
    assert time.perf_counter() - started < 1.0


# Misfires


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [("skip", []), ("coalesce", [NOW - 10 * SECOND]), ("catch_up", [NOW - n * SECOND for n in (130, 70, 10)])],
)
def test_pending_when_due_times_were_missed_then_as_the_policy_says(misfire: Misfire, expected: list[int]) -> None:
    floor, now = NOW - 180 * SECOND, NOW + 0
    schedule = cron(f"{(NOW // SECOND - 10) % 60} * * * * *", misfire=misfire)
    assert pending(schedule, floor, now) == expected


@pytest.mark.parametrize("misfire", ["skip", "coalesce", "catch_up"])
@pytest.mark.parametrize("late_ms", [0, 500, GRACE_MS - 1])
def test_pending_when_only_a_little_late_then_fired_whatever_the_policy(misfire: Misfire, late_ms: int) -> None:
    assert pending(every(60, misfire=misfire), NOW - 1, NOW + late_ms) == [NOW]


def test_pending_when_some_are_missed_and_some_are_fresh_then_coalesced_and_the_fresh() -> None:
    dues = pending(every(1), NOW - 60 * SECOND, NOW)
    assert dues == [NOW - 2 * SECOND, NOW - SECOND, NOW]
    assert pending(every(1, misfire="skip"), NOW - 60 * SECOND, NOW) == dues[1:]


def test_pending_when_a_great_many_are_caught_up_with_then_the_latest_thousand() -> None:
    dues = pending(every(1, misfire="catch_up"), NOW - DAY, NOW)
    assert (len(dues), dues[-1]) == (CATCH_UP, NOW)


@pytest.mark.parametrize("misfire", ["skip", "coalesce", "catch_up"])
def test_pending_when_dealt_with_or_not_begun_then_nothing(misfire: Misfire) -> None:
    assert pending(every(60, misfire=misfire), NOW, NOW + 10 * SECOND) == []
    assert pending(every(60, misfire=misfire), NOW + HOUR, NOW) == []


def test_schedule_when_paused_then_nothing_is_due() -> None:
    paused = every(1, paused=True)
    assert (pending(paused, 0, NOW), next_due(paused, NOW), next_times(paused, NOW)) == ([], None, [])


# What may be


def test_valid_schedule_when_sound_then_as_it_is_with_a_plain_body() -> None:
    sound = every(1.0004, body={"at": datetime(2026, 1, 2, tzinfo=UTC), "n": [1, None, "x"]}, misfire="skip")
    assert valid_schedule(sound) == every(1.0, body={"at": "2026-01-02T00:00:00Z", "n": [1, None, "x"]}, misfire="skip")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (cron("* * *"), 'cron = "* * *": expected a cron expression'),
        (cron("61 * * * *"), 'cron = "61 * * * *": expected'),
        (cron("0 0 30 2 *"), 'cron = "0 0 30 2 *": expected a cron expression that is due at some time'),
        (cron("* " * 500), "cron = "),
        (cron("* * * * *", "Mars/Olympus"), 'tz = "Mars/Olympus": expected an IANA time zone'),
        (cron("* * * * *", "Europe"), 'tz = "Europe": expected'),
        (cron("* * * * *", "../../etc/passwd"), "tz = "),
        (cron("* * * * *", "localtime"), "tz = "),
        (every(0.5), "every = 0.5: expected seconds"),
        (every(float("nan")), "cron: a schedule needs one of"),
        (every(5, tz="Europe/Berlin"), "tz: only a cron expression has a time zone"),
        (every(5, cron="* * * * *"), "every: a schedule has only one of cron and every"),
        (Schedule(name="s", queue="q"), "cron: a schedule needs one of cron and every"),
        (Schedule(name="a b", queue="q", every=5), 'name = "a b": expected 1 to 100'),
        (Schedule(name="a" * 101, queue="q", every=5), "name = "),
        (Schedule(name="s", queue="", every=5), 'queue = "": expected the name of a queue'),
        (every(5, misfire="never"), "misfire"),
        (every(5, overlap=1), "overlap"),
        (every(5, body=object()), "object"),
        (every(5, body="\ud800"), "surrogates"),
    ],
)
def test_valid_schedule_when_a_value_is_unfit_then_the_error_names_it(schedule: Schedule, expected: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        valid_schedule(schedule)
    assert expected in str(caught.value)


_FIELD = st.sampled_from(
    ["*", "*/7", "1", "1-5", "1,3", "0", "L", "LW", "MON#1", "5L", "JAN", "*/0", "9-1", "1/2", "", "#", "31"]
)


@settings(deadline=None)
@given(st.lists(_FIELD, min_size=4, max_size=7))
def test_valid_schedule_when_a_cron_is_anything_then_it_is_kept_or_refused(fields: list[str]) -> None:
    try:
        schedule = valid_schedule(cron(" ".join(fields)))
    except InvalidSchedule:
        return
    due = next_due(schedule, NOW)
    assert due is None or due > NOW


def test_message_id_when_the_name_is_as_long_as_it_may_be_then_a_valid_id() -> None:
    assert valid_name(message_id("n" * 100, NOW), "id") == f"schedule:{'n' * 100}:{NOW}"


def test_next_times_when_asked_then_five_in_rfc_3339() -> None:
    times = next_times(every(timedelta(days=1).total_seconds()), 0)
    assert times == [f"1970-01-0{day}T00:00:00.000Z" for day in range(2, 7)]


# The configuration


TABLE = '[[schedules]]\nname = "report"\nqueue = "reports"\n'


def loaded(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> dict[str, Schedule]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load(path, environ or {}).config.schedules


def test_load_when_schedules_are_configured_then_each_by_its_name(tmp_path: Path) -> None:
    text = f'{TABLE}cron = "0 7 * * *"\ntz = "Europe/Berlin"\nbody = {{ day = 2026-01-02 }}\n[[schedules]]\n'
    text += 'name = "tick.tock"\nqueue = "q"\nevery = "5m"\nmisfire = "skip"\noverlap = "skip"'
    assert loaded(tmp_path, text) == {
        "report": Schedule(
            name="report", queue="reports", cron="0 7 * * *", tz="Europe/Berlin", body={"day": "2026-01-02"}
        ),
        "tick.tock": Schedule(name="tick.tock", queue="q", every=300.0, misfire="skip", overlap="skip"),
    }


def test_load_when_the_environment_sets_a_value_then_it_goes_before_the_file(tmp_path: Path) -> None:
    schedules = loaded(tmp_path, f"{TABLE}every = 30", {"MQSERVICE_SCHEDULES__REPORT__EVERY": "90"})
    assert schedules["report"].every == 90.0


def test_loaded_when_it_has_schedules_then_its_rows_show_each_value(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'{TABLE}every = "5m"')
    rows = [row for row in load(path, {}).rows() if row[0].startswith("schedules")]
    origin = f"file {path}"
    assert rows == [("schedules.report.queue", "reports", origin), ("schedules.report.every", 300.0, origin)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{TABLE}evry = 5", 'unknown key "schedules.report.evry"'),
        (f'{TABLE}cron = "* *"', 'schedules.report.cron = "* *" (file'),
        (f'{TABLE}cron = "* * * * *"\ntz = "Mars"', 'schedules.report.tz = "Mars" (file'),
        (f"{TABLE}every = 0.5", "schedules.report.every = 0.5 (file"),
        (f'{TABLE}every = 5\nmisfire = "x"', 'schedules.report.misfire = "x" (file'),
        (TABLE, "schedules.report.cron: a schedule needs one of cron and every"),
        ('[[schedules]]\nname = "x"\nevery = 5', "schedules.x.queue: a schedule needs a queue"),
        ('[[schedules]]\nqueue = "x"', "schedules[0].name (file"),
        (f"{TABLE}every = 5\n{TABLE}every = 5", 'schedules[1].name = "report" (file'),
        ("[schedules.report]\nevery = 5", "expected an array of tables, [[schedules]]"),
        ('[[schedules]]\nname = "a b"\nqueue = "q"\nevery = 5', "schedule 'a b' is not a name"),
    ],
)
def test_load_when_a_schedule_is_wrong_then_the_error_names_the_key(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert expected in str(caught.value)
