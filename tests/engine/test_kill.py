# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and started again sends only what was not answered."""

import asyncio
import subprocess
import sys
from pathlib import Path

import loopback

_PROGRAM = Path(__file__).parent / "support" / "killable.py"


def start(port, path):
    return subprocess.Popen(
        [sys.executable, str(_PROGRAM), str(port), str(path)], stdout=subprocess.PIPE, text=True
    )


async def test_after_sigkill_only_what_was_not_answered_is_sent(tmp_path):
    settings = loopback.Settings(latency_s=0.02, body=loopback.body("compact"))
    server, port, stats = await loopback.serve(settings)
    async with server:
        first = start(port, tmp_path / "answers.sqlite")
        seen = []
        while len(seen) < 200:
            seen.append(int(await asyncio.to_thread(first.stdout.readline)))
        first.kill()
        seen += [int(line) for line in (await asyncio.to_thread(first.stdout.read)).split()]
        await asyncio.to_thread(first.wait)
        first.stdout.close()
        sent_before = dict(stats.seen)
        assert len(sent_before) < 500

        second = start(port, tmp_path / "answers.sqlite")
        output = await asyncio.to_thread(second.stdout.read)
        assert await asyncio.to_thread(second.wait) == 0
        second.stdout.close()
    assert sorted(int(line) for line in output.split()) == list(range(500))
    # Nothing that the first run had shown was sent again ...
    assert all(stats.seen[number] == 1 for number in seen)
    # ... and in all, only what was under way when it died: ten in flight, and answers that had
    # arrived and were not yet on the disk.
    again = sum(stats.seen.values()) - 500
    assert again <= 20
