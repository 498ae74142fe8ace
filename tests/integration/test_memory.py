"""Memory stays bounded: a tenth of what `python -m tests.bench.memory` shows with a million."""

import asyncio
import json
import sys

from tests.processes import ROOT


async def test_process_when_a_hundred_thousand_messages_went_through_then_it_has_not_grown() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.memory", "100000"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    measured = json.loads(out)
    assert measured["grown_mib"] < 8
    assert max(measured["redis_mib"][1:]) < 3 * measured["redis_mib"][1]
    assert measured["keys_left_without_ttl"] == []
