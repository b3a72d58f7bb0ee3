# SPDX-License-Identifier: Apache-2.0
"""An actor whose run is gone ends by itself."""

import asyncio

from pizza_ray.watch import Watch


async def test_silence_ends_it_once():
    ended = asyncio.Event()
    Watch(0.001, ended.set).heard()
    await ended.wait()


async def test_whoever_was_stopped_or_never_heard_anything_stays():
    calls = []
    watch = Watch(0.0, lambda: calls.append("ended"))
    watch.heard()
    watch.stop()
    later = asyncio.Event()
    Watch(0.001, later.set).heard()
    await later.wait()
    assert calls == []


async def test_what_is_heard_puts_the_end_off():
    loop, calls = asyncio.get_running_loop(), []
    watch = Watch(1000.0, lambda: calls.append("ended"))
    watch.heard()
    first = watch._timer.when()
    watch.heard()
    assert watch._timer.when() >= first
    assert watch._timer.when() > loop.time() + 900
    watch.stop()
