# SPDX-License-Identifier: Apache-2.0
"""The example as a program, and the handler that docs/embedding.md shows."""

import asyncio
import re
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

pytest.importorskip("fastapi", reason="pip install --group serve")
pytest.importorskip("uvicorn", reason="pip install --group serve")

from support.serving import events, running

ROOT = Path(__file__).parents[2]


async def test_it_serves_until_it_is_interrupted():
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serve", "--port", "0", "--max-calls", "50"),
        cwd=ROOT / "examples",
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        url = None
        while url is None:
            line = (await program.stderr.readline()).decode()
            assert line, "it ended before it served"
            url = re.search(r"http://127\.0\.0\.1:\d+", line)
        async with aiohttp.ClientSession() as client:
            question = {"prompt": "Ana has 3 red apples. How many apples does Ana have?"}
            async with client.post(f"{url[0]}/attribute", json=question) as answer:
                stream = [event async for event in events(answer)]
            assert stream[-1][0] == "attribution"
            async with client.post(f"{url[0]}/attribute", json={**question, "budget": 51}) as no:
                assert no.status == 422
            async with client.get(url[0]) as page:
                assert "default-src 'none'" in page.headers["content-security-policy"]
        program.send_signal(signal.SIGINT)
        _, said = await program.communicate()
        assert b"Traceback" not in said
        assert program.returncode in (0, -signal.SIGINT)
    finally:
        if program.returncode is None:
            program.kill()
            await program.communicate()


async def test_the_handler_of_the_documentation_answers():
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    module = {"__name__": "shown"}
    exec(compile(shown, "docs/embedding.md", "exec"), module)
    prompt = "Ana has 3 red apples. How many apples does Ana have?"
    with running(module["app"]) as app:
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{app.url}/top", params={"prompt": prompt}) as answer,
        ):
            assert answer.status == 200
            found = await answer.json()
    assert [len(pair) for pair in found] == [2, 2, 2]
    assert found[0][1] >= found[1][1] >= found[2][1]
