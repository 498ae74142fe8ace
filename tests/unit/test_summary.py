"""The line of a second: what is in it, and that there is none when nothing happened."""

from mqservice.summary import Summary
from mqservice.tally import Tally


def test_fields_when_nothing_happened_then_none() -> None:
    assert Summary(Tally()).fields() == {}


def test_fields_when_only_probes_came_then_none() -> None:
    tally = Tally()
    probe = tally.route("GET /livez", quiet=True)
    summary = Summary(tally)
    probe.codes[503] += 1
    assert summary.fields() == {}


def test_fields_when_called_again_then_only_what_came_since() -> None:
    tally = Tally()
    route, queue = tally.route("POST /v1/x"), tally.queue("jobs")
    route.codes[202] += 5  # before
    summary = Summary(tally)
    route.codes.update({202: 3, 429: 2, 503: 1})
    for seconds in (0.001, 0.001, 0.5):
        route.took.observe(seconds)
    tally.sent("jobs", 3)
    queue.run.observe(0.003)
    queue.failed += 1
    queue.dead["failed"] += 1
    fields = summary.fields()
    assert (fields["requests"], fields["refused"], fields["errors"]) == (6, 2, 1)
    assert (fields["sent"], fields["handled"], fields["failed"], fields["dead"]) == (3, 1, 1, 1)
    assert fields["request_p50_ms"] <= 1.0
    assert 256 <= fields["request_p95_ms"] <= 512
    assert 2 <= fields["run_p50_ms"] <= 4
    assert summary.fields() == {}


def test_fields_when_only_streams_were_asked_for_then_no_quantiles() -> None:
    tally = Tally()
    stream = tally.route("GET /v1/events", timed=False)
    summary = Summary(tally)
    stream.codes[200] += 1
    assert summary.fields() == {"requests": 1}
