# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser."""

import os
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

pytest.importorskip("fastapi", reason="pip install --group serve")
pytest.importorskip("uvicorn", reason="pip install --group serve")
pytest.importorskip("playwright", reason="pip install --group serve")

from playwright.async_api import async_playwright
from support.server import served_model
from support.serving import served

import pizza

PROMPT = "Ana has 3 red apples and Bob has 5 green pears. How many pears does Bob have?"
HOSTILE = '😀 <img src=x onerror=alert(1)> "quoted" & <b>Ana</b> has 3 apples'
HOW = "no Chromium: apt-get install chromium, or python -m playwright install chromium"
SHOWN_MS = 30_000


def browser_of(driver):
    """A browser that is on the machine, else Playwright's own; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), driver.chromium.executable_path)
    if not Path(path).exists():
        pytest.skip(HOW)
    return path


@asynccontextmanager
async def opened(app, **options):
    """The page, and what it complained about."""
    async with async_playwright() as driver:
        # Chromium's sandbox does not work for root.
        flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = await driver.chromium.launch(executable_path=browser_of(driver), args=flags)
        try:
            context = await browser.new_context(**options)
            page = await context.new_page()
            page.set_default_timeout(SHOWN_MS)
            complaints = []
            page.on("console", lambda said: complaints.append(said.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
            await page.goto(app.url)
            yield page, complaints
        finally:
            await browser.close()


def slow(model, **rules):
    """The application in front of a model that takes its time."""
    return served(
        f"openai:{model.model}",
        {"step_s": 0.01, **rules},
        base_url=model.base_url,
        api_key="none",
        limits=pizza.Limits(max_concurrency=1),
    )


async def words(page, kind=""):
    return await page.locator(f"#words .unit{kind}").all_text_contents()


async def test_words_are_coloured_before_the_end_and_right_at_the_end(tmp_path):
    with served_model(latency="0.15") as model, slow(model) as app:
        async with pizza.Session(
            f"openai:{model.model}", base_url=model.base_url, api_key="none"
        ) as session:
            direct = await session.attribute(PROMPT)
        async with opened(app) as (page, complaints):
            await page.fill("#prompt", PROMPT)
            await page.press("#prompt", "Control+Enter")
            await page.wait_for_selector("#words .unit.for")
            # Some are coloured, others wait, and it goes on.
            assert await words(page, ".unknown")
            assert await page.get_attribute("body", "data-state") is None
            await page.screenshot(path=tmp_path / "half.png", full_page=True)
            await page.wait_for_selector("body[data-state=done]")
            await page.screenshot(path=tmp_path / "done.png", full_page=True)
            assert await words(page, ".unknown") == []
            assert await words(page) == [unit.text for unit in direct.units]
            assert await page.text_content("#output") == direct.output.text
            strongest = direct.top(1)[0]
            assert (
                await page.text_content("#top tr:first-child td:first-child") == strongest[0].text
            )
            shown = await page.text_content("#top tr:first-child td:last-child")
            assert float(shown) == pytest.approx(strongest[1], abs=0.006)
            assert f"Full colour is {strongest[1]:.2f}" in await page.text_content("#scale")
            assert f"of {direct.metric}" in await page.text_content("#scale")
            # Words that stand twice are told apart.
            rows = await page.locator("#top td:first-child").all_text_contents()
            assert {"Bob (1 of 2)", "Bob (2 of 2)"} <= set(rows)
            blue = await page.locator("#words .unit.for").first.evaluate(
                "word => getComputedStyle(word).backgroundColor"
            )
            assert blue.startswith("rgb")
            assert await page.text_content("#words") == PROMPT
            assert complaints == []


async def test_it_works_with_the_keyboard_alone():
    with served() as app:
        async with opened(app) as (page, complaints):
            # The prompt has the focus; Tab leads on to the button.
            await page.keyboard.press("Control+A")
            await page.keyboard.type("Ana has 3 red apples. How many apples does Ana have?")
            for _ in range(3):
                await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.id") == "ask"
            await page.keyboard.press("Enter")
            await page.wait_for_selector("body[data-state=done]")
            # Stop is disabled by now: the next stop is the first word.
            await page.keyboard.press("Tab")
            seen = []
            for key in ("ArrowRight", "ArrowRight", "End", "ArrowRight", "Home"):
                await page.keyboard.press(key)
                seen.append(await page.evaluate("document.activeElement.textContent"))
            all_words = await words(page)
            last = all_words[-1]
            assert seen == [all_words[1], all_words[2], last, last, all_words[0]]
            detail = await page.text_content("#detail")
            assert detail.startswith(all_words[0])
            assert any(said in detail for said in ("supports", "works against", "no effect"))
            assert complaints == []


async def test_markup_of_users_stays_text():
    with served() as app:
        async with opened(app) as (page, complaints):
            await page.fill("#prompt", HOSTILE)
            await page.click("#ask")
            await page.wait_for_selector("body[data-state=done]")
            assert await page.text_content("#words") == HOSTILE
            assert await page.locator("#words img, #words b, #top img, #top b").count() == 0
            assert complaints == []


async def test_stop_ends_the_work_on_the_server():
    with served_model(latency="0.2") as model, slow(model) as app:
        async with opened(app) as (page, complaints):
            await page.fill("#prompt", " ".join([PROMPT] * 4))
            await page.press("#prompt", "Control+Enter")
            await page.wait_for_selector("#words .unit:not(.unknown)")
            await page.keyboard.press("Escape")
            async with aiohttp.ClientSession() as client:
                health = await app.idle(client, model)
            assert health["active"] == health["statistics"]["in_flight"] == 0
            assert model.stats["in_flight"] == 0
            assert (await page.text_content("#status")).startswith("stopped: ")
            assert await page.get_attribute("body", "data-state") == "stopped"
            # What was measured until then stays, and says that it is not all.
            assert await words(page, ".unknown")
            assert "so far" in await page.text_content("#scale")
            assert await page.is_disabled("#stop")
            assert complaints == []
        assert sum(model.stats["requests"].values()) < 4 * 17


async def test_closing_the_page_ends_the_work_on_the_server():
    with served_model(latency="0.2") as model, slow(model) as app:
        async with opened(app) as (page, _):
            await page.fill("#prompt", " ".join([PROMPT] * 4))
            await page.press("#prompt", "Control+Enter")
            await page.wait_for_selector("#words .unit:not(.unknown)")
        async with aiohttp.ClientSession() as client:
            health = await app.idle(client, model)
        assert health["active"] == health["statistics"]["in_flight"] == 0
        assert sum(model.stats["requests"].values()) < 4 * 17


async def test_errors_are_said_aloud():
    with (
        served_model(faults="500=1.0,seed=1") as model,
        served(
            f"openai:{model.model}",
            {"max_characters": 80},
            base_url=model.base_url,
            api_key="none",
            retry=pizza.RetryPolicy(attempts=1),
        ) as app,
    ):
        async with opened(app) as (page, _):
            alert = page.get_by_role("alert")
            await page.fill("#prompt", "too long " * 10)
            await page.click("#ask")
            await alert.filter(has_text="80").wait_for()
            # A legend of nothing would only be in the way.
            assert await page.is_hidden("#results")
            await page.fill("#prompt", "Ana has 3 apples")
            await page.click("#ask")
            await alert.filter(has_text="500").wait_for()
            assert await page.get_attribute("body", "data-state") == "failed"


async def test_an_answer_of_something_in_between_is_said_as_such():
    with served() as app:
        async with opened(app) as (page, _):
            await page.route("**/attribute", lambda route: route.fulfill(status=502, body="<html>"))
            await page.click("#ask")
            await page.get_by_role("alert").filter(has_text="The server answered 502").wait_for()


async def test_dark_text_on_every_colour_for_every_eye():
    """The strongest colours -> contrast of 4.5 or more with the text, and differ without hue."""
    with served() as app:
        async with opened(app, viewport={"width": 360, "height": 700}) as (page, complaints):
            await page.fill("#prompt", PROMPT)
            await page.click("#ask")
            await page.wait_for_selector("body[data-state=done]")
            found = await page.evaluate(
                """() => ["for", "against"].map((kind) => {
                    const style = getComputedStyle(document.querySelector(`.legend .${kind}`));
                    return [style.color, style.backgroundColor, style.borderBottomStyle];
                })"""
            )
            assert [line for *_, line in found] == ["solid", "dashed"]
            assert all(contrast(text, back) >= 4.5 for text, back, _ in found)
            # On a small screen nothing sticks out to the side.
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360
            assert complaints == []


def contrast(text, background):
    """WCAG 2 contrast of two CSS colours, a transparent one over white."""
    light, dark = sorted((luminance(text), luminance(background)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(css):
    *rgb, alpha = [*(float(x) for x in css[css.index("(") + 1 : -1].split(",")), 1.0][:4]
    over_white = [alpha * x / 255 + 1 - alpha for x in rgb]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in over_white]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
