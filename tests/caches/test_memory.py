# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pizza.caches.memory import MemoryCache
from pizza.errors import ConfigError


async def test_what_was_put_is_found_and_can_be_replaced():
    cache = MemoryCache()
    assert await cache.get("a") is None
    await cache.put("a", b"1")
    await cache.put("a", b"22")
    assert await cache.get("a") == b"22"
    assert len(cache) == 1


async def test_the_least_recently_used_go_first():
    cache = MemoryCache(max_bytes=3 * 350)
    for key in "abc":
        await cache.put(key, bytes(100))
    await cache.get("a")
    await cache.put("d", bytes(100))
    assert [await cache.get(key) is not None for key in "abcd"] == [True, False, True, True]


async def test_a_value_larger_than_the_cache_is_not_kept():
    cache = MemoryCache(max_bytes=100)
    await cache.put("a", bytes(1000))
    assert len(cache) == cache.size == 0


async def test_closing_forgets_everything():
    cache = MemoryCache()
    await cache.put("a", b"1")
    await cache.aclose()
    assert len(cache) == cache.size == 0


def test_a_size_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="max_bytes"):
        MemoryCache(max_bytes=0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900)), max_size=40))
async def test_the_bound_holds_and_the_bytes_add_up(puts):
    cache = MemoryCache(max_bytes=2000)
    for key, size in puts:
        await cache.put(key, bytes(size))
        assert cache.size <= 2000
        assert cache.size == sum(len(v) + 250 for v in cache._entries.values())
