"""RQ: its SimpleWorker, which does not fork for each job and so is its fastest."""

import logging
import time

import rq
from pace import BATCH, Pace, say, send_in_threads, wish
from redis import Redis

WISH = wish()
PACE = Pace(WISH.count)
logging.disable(logging.INFO)


def noop(number):
    PACE.tick()
    return number


def main():
    import drive_rq  # the module that the worker will import, not this one

    connection = Redis.from_url(WISH.url)
    queue = rq.Queue("noop", connection=connection)

    def send_batch(numbers):
        queue.enqueue_many([rq.Queue.prepare_data(drive_rq.noop, args=(number,)) for number in numbers])

    if WISH.do == "send":
        one_by_one = send_in_threads(lambda number: queue.enqueue(drive_rq.noop, number), WISH.count)
        began_at = time.perf_counter()
        for first in range(0, WISH.count, BATCH):
            send_batch(range(first, min(first + BATCH, WISH.count)))
        say(send_per_s=one_by_one, batch_per_s=WISH.count / (time.perf_counter() - began_at))
        return
    for first in range(0, WISH.count, BATCH):
        send_batch(range(first, min(first + BATCH, WISH.count)))
    rq.SimpleWorker([queue], connection=connection).work(burst=True, logging_level="ERROR")


if __name__ == "__main__":
    main()
