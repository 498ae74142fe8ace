"""10,000 handlers that fail at the same moment."""

from collections import Counter
from collections.abc import Callable

from mqservice.message import Outgoing
from tests.chaos.ledger import Ledger
from tests.chaos.load import now, ours, settled
from tests.chaos.matrix import Row
from tests.chaos.servers import Valkey
from tests.waiting import until

COUNT = 10_000


async def test_handlers_when_10000_fail_at_once_then_each_is_tried_again_or_dead_and_nothing_stands_still(
    valkey: Valkey, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("10,000 handlers fail at once: longest silence until all have run again", 5.0)
    async with ours(valkey.url(), ledger, concurrency=COUNT) as service:
        broker = service._running().backend.broker("work")
        # The last thousand is rejected: dead at once. All the others wait for the same moment, and fail.
        for start in range(0, COUNT, 1000):
            more = b'"reject":true' if start == COUNT - 1000 else b'"fails":1,"retry_s":0.5,"ms":3000'
            await broker.send_many([Outgoing(f"n{n}", b'{"n":%d,%s}' % (n, more)) for n in range(start, start + 1000)])
            ledger.acknowledge(*range(start, start + 1000))
        await until(lambda: ledger.started().total() == COUNT, 20)
        failing_at = max(note.at for note in ledger.notes()) + 3.0
        await until(lambda: ledger.handled_count() == COUNT - 1000, 60)
        figures.going_again(ledger.longest_silence_s(failing_at, now()))
        await settled(ledger, valkey)
    with valkey.client() as client:
        counts = ledger.counts(client)
        assert (counts["done"], counts["dead"], counts["sent"]) == (COUNT - 1000, 1000, COUNT)
        figures.close(ledger.balance(client, Counter(dict.fromkeys(range(COUNT - 1000), 2))))
