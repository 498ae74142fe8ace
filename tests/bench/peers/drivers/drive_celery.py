"""Celery: one worker process (prefork), late acknowledgement, and prefetching as its guide says for short tasks."""

import os
import subprocess
import sys
from pathlib import Path

from celery import Celery
from pace import Pace, say, send_in_threads, wish

if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
    os.environ["PEER_WISH"] = sys.argv[1]
else:
    sys.argv = [sys.argv[0], os.environ["PEER_WISH"]]  # in the worker
WISH = wish()
POOL = getattr(WISH, "pool", "prefork")
PREFETCH = str(getattr(WISH, "prefetch", 128))
PACE = Pace(WISH.count)

app = Celery("drive_celery", broker=WISH.url, backend=WISH.url)
app.conf.update(
    task_acks_late=True,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
    result_expires=3600,
)


@app.task(name="noop")
def noop(number):
    PACE.tick()
    return number


def send(number):
    noop.delay(number)


def main():
    if WISH.do == "send":
        say(send_per_s=send_in_threads(send, WISH.count))
        return
    for number in range(WISH.count):
        send(number)
    program = Path(sys.executable).with_name("celery")
    options = f"-A drive_celery worker -P {POOL} -c 1 --prefetch-multiplier {PREFETCH} -l ERROR"
    options += " --without-gossip --without-mingle --without-heartbeat"
    worker = subprocess.Popen(
        [str(program), *options.split()], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    try:
        for line in worker.stdout:
            if line.startswith('{"drain_per_s"'):
                os.write(1, line.encode())
                break
    finally:
        worker.kill()
        worker.wait()


if __name__ == "__main__":
    main()
