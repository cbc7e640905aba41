"""The page in a real Chromium: speak, stop, errors in words, clone, keys, keyboard, small screens, colour schemes."""

import asyncio
import time

import pytest

from tests.server.harness import until
from tests.server.recordings import recording
from tests.server.test_api import parsed
from tests.server.test_auth import ANNA

SENTENCE = "今天天气很好。"
SLOW = ("--step-seconds", "0.02")  # about as fast as it is heard


async def becomes(page, expression, seconds=15):
    """Until it is true. Asked from outside: the page's policy lets nobody evaluate strings inside."""
    async with asyncio.timeout(seconds):
        while not await page.evaluate(expression):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def visit(page, running):
    await page.goto(f"http://127.0.0.1:{running.port}/")
    await becomes(page, "document.querySelectorAll('#voice option').length > 13")


async def say(page, text):
    await page.fill("#text", text)
    await page.click("#speak")


async def heard(page):
    """Until the loudspeaker has played everything."""
    await becomes(page, "document.getElementById('stop').disabled")


async def colours(page, canvas):
    """How many different colours a picture has."""
    return await page.evaluate(
        """id => { const canvas = document.getElementById(id);
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        return new Set(new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size; }""",
        canvas,
    )


def idle(running):
    synthesis = running.server.synthesis
    return synthesis.engine.open_rows == 0 and synthesis.admission.inflight == 0


async def test_speech_is_heard_and_shown_while_it_comes(serve, page):
    async with serve(*SLOW) as running:
        await visit(page, running)
        blank = [await colours(page, canvas) for canvas in ("wave", "spectrum")]
        began = time.monotonic()
        await say(page, SENTENCE * 2)
        await becomes(page, "document.getElementById('first').textContent.endsWith(' ms')")
        assert not idle(running)  # it is still being made
        await becomes(page, "document.getElementById('busy').textContent === '1 of 8'")
        assert await page.locator("#rows .busy").count() == 1
        assert await page.inner_text("#factor") == "–"
        await heard(page)
        length = float((await page.inner_text("#length")).removesuffix(" s"))
        assert length == pytest.approx(3.6, abs=0.5)
        assert time.monotonic() - began > length * 0.9  # the loudspeaker took its time: nothing was skipped
        assert 0.5 < float(await page.inner_text("#factor")) < 3
        assert int((await page.inner_text("#first")).removesuffix(" ms")) < 1000 * length
        assert [
            await colours(page, canvas) > some + 1 for canvas, some in zip(("wave", "spectrum"), blank, strict=True)
        ]
        assert f"{length:.1f} seconds spoken" in await page.inner_text("#live")
        assert await page.get_attribute("#wave", "aria-label") == f"Waveform of {length:.1f} seconds"
        async with page.expect_download() as saving:
            await page.click("#save")
        saved = await (await saving.value).path()
        assert saved.stat().st_size == pytest.approx(44 + 48000 * length, rel=0.01)
        await page.click("#again")
        assert await page.is_enabled("#stop")
        await page.click("#stop")
        assert await page.inner_text("#error") == ""


async def test_every_format_that_the_server_offers_is_heard(serve, page):
    async with serve() as running:
        await visit(page, running)
        formats = await page.locator("#format option").all_inner_texts()
        assert {"pcm", "wav", "mp3"} <= set(formats)
        for kind in formats:
            await page.select_option("#format", kind)
            await say(page, "你好")
            await becomes(page, "document.getElementById('factor').textContent !== '–'")
            assert float((await page.inner_text("#length")).removesuffix(" s")) == pytest.approx(0.5, abs=0.2), kind
            assert await page.get_attribute("#save", "download") == (
                "speech.wav" if kind == "pcm" else f"speech.{kind}"
            )
            assert await page.inner_text("#error") == ""


async def test_stop_frees_the_row_at_once(serve, page):
    async with serve(*SLOW) as running:
        await visit(page, running)
        await say(page, SENTENCE * 6)
        await becomes(page, "document.getElementById('first').textContent.endsWith(' ms')")
        assert not idle(running)
        began = time.monotonic()
        await page.click("#stop")
        await until(lambda: idle(running), 2)
        assert time.monotonic() - began < 1
        await becomes(page, "document.getElementById('busy').textContent === '0 of 8'")
        made = parsed(await running.metrics())["chattts_audio_seconds_total",]
        await asyncio.sleep(0.6)  # the engine reports four times a second: it has left the row, too
        assert parsed(await running.metrics())["chattts_audio_seconds_total",] == made
        assert await page.inner_text("#live") == "Stopped."
        assert await page.inner_text("#error") == ""
        await say(page, "你好")  # and the next one is spoken to its end
        await becomes(page, "document.getElementById('factor').textContent !== '–'")


async def test_what_goes_wrong_is_said_in_words(serve, page):
    flags = ("--step-seconds", "0.005", "--rows", "1", "--throughput", "1")
    async with serve(*flags, max_queue_wait_milliseconds="1000") as running:
        await visit(page, running)

        async def error():
            await page.wait_for_selector("#error:visible")
            return await page.inner_text("#error")

        await page.fill("#text", "   ")
        await page.click("#speak")
        assert await error() == "There is no text to speak."
        await say(page, "😀")
        await becomes(page, "document.getElementById('error').textContent.includes('nothing that can be read')")
        await say(page, "坏")
        await becomes(page, "document.getElementById('error').textContent === 'This text or voice cannot be spoken.'")
        await page.select_option("#voice", "other:")
        await page.fill("#other", "nobody")
        await say(page, "你好")
        await becomes(page, "document.getElementById('error').textContent.startsWith('Unknown voice')")
        await page.select_option("#voice", "default")

        others = [
            asyncio.create_task(running.client.post("/tts", json={"text": "好", "max_seconds": 5})) for _ in range(2)
        ]
        await until(lambda: running.server.synthesis.admission.audio_seconds > 2)
        await say(page, "你好")
        await becomes(page, "document.getElementById('error').textContent.startsWith('The server is full')")
        assert "Try again in" in await error()
        await asyncio.gather(*others)
        await say(page, SENTENCE * 12 + "坏")  # the second piece is refused by the engine: the stream breaks
        await becomes(page, "document.getElementById('error').textContent.startsWith('The sound broke off')")
        await say(page, "你好")
        await becomes(page, "document.getElementById('factor').textContent !== '–'")
        assert await page.is_hidden("#error")
    await say(page, "你好")
    await becomes(page, "document.getElementById('error').textContent.includes('cannot be reached')")


async def test_a_voice_is_cloned_from_a_file_and_spoken_with(serve, page, tmp_path):
    (tmp_path / "voices").mkdir()
    (tmp_path / "me.mp3").write_bytes(recording(2, "mp3"))
    async with serve(voices=str(tmp_path / "voices")) as running:
        await visit(page, running)
        await page.set_input_files("#file", tmp_path / "me.mp3")
        assert await page.inner_text("#recording") == "me.mp3"
        await page.fill("#transcript", "你好世界")
        await page.fill("#clone-name", "anna")
        await page.click("#clone")
        assert list((tmp_path / "voices").iterdir()) == []  # nobody has agreed yet
        await page.check("#consent")
        await page.click("#clone")
        await becomes(page, "document.getElementById('voice').value === 'anna'")
        assert "“anna” is a voice of this service now" in await page.inner_text("#clone-done")
        assert (tmp_path / "voices" / "anna").read_text().startswith("clone:")
        async with page.expect_request("**/v1/audio/speech") as asked:
            await say(page, "你好")
        assert (await asked.value).post_data_json["voice"] == "anna"
        await becomes(page, "document.getElementById('factor').textContent !== '–'")
        await page.click("#clone")
        await page.wait_for_selector("#clone-error:visible")
        assert "There is a voice of this name" in await page.inner_text("#clone-error")


async def test_a_voice_is_cloned_from_the_microphone_where_none_are_kept(serve, page):
    async with serve() as running:
        await visit(page, running)
        assert await page.is_hidden("#name-field")
        await page.fill("#transcript", "beep")
        await page.check("#consent")
        await page.click("#clone")
        assert "There is no recording yet" in await page.inner_text("#clone-error")
        await page.click("#record")
        await becomes(page, "document.getElementById('recording').textContent.startsWith('recording … 2')")
        assert await page.get_attribute("#record", "aria-pressed") == "true"
        await page.click("#record")
        await becomes(page, "document.getElementById('recording').textContent.endsWith('recorded')")
        await page.click("#clone")
        await becomes(page, "document.getElementById('voice').value.startsWith('clone:')")
        assert await page.is_visible("#copy")
        await say(page, "你好")
        await becomes(page, "document.getElementById('factor').textContent !== '–'")


async def test_a_key_opens_the_page_and_stays_in_the_tab(serve, page, tmp_path):
    (tmp_path / "keys").write_text(f"anna: {ANNA}")
    async with serve(api_keys=str(tmp_path / "keys")) as running:
        await page.goto(f"http://127.0.0.1:{running.port}/")
        await page.wait_for_selector("#key-form:visible")
        assert await page.inner_text("#summary") == "locked"
        await say(page, "你好")
        await becomes(page, "document.getElementById('error').textContent.includes('wants an API key')")
        await page.fill("#key", "wrong-0123456789abcdef")
        await page.press("#key", "Enter")
        await becomes(page, "document.getElementById('server-hint').textContent.includes('not accepted')")
        await page.fill("#key", ANNA)
        await page.press("#key", "Enter")
        await becomes(page, "document.querySelectorAll('#voice option').length > 13")
        await say(page, "你好")
        await becomes(page, "document.getElementById('factor').textContent !== '–'")
        kept = await page.evaluate("[Object.keys(localStorage), document.cookie, Object.values(sessionStorage)]")
        assert kept == [[], "", [ANNA]]
        assert ANNA not in page.url
        other = await page.context.new_page()
        await other.goto(page.url)
        await becomes(other, "document.getElementById('summary').textContent === 'locked'")


async def test_the_keyboard_is_enough(serve, page):
    async with serve(*SLOW) as running:
        await visit(page, running)
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        await page.focus("#text")
        await page.keyboard.press("Control+A")
        await page.keyboard.type("hello to you and to everybody else who listens")
        await page.keyboard.press("Control+Enter")
        await becomes(page, "document.getElementById('first').textContent.endsWith(' ms')")
        await page.keyboard.press("Escape")
        await until(lambda: idle(running), 2)
        seen = []
        for _ in range(40):
            await page.keyboard.press("Tab")
            seen.append(await page.evaluate("document.activeElement.id"))
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            if seen[-1] not in ("", "file", "preview"):
                assert await page.evaluate(outline) != "none", seen[-1]
        assert {"voice", "format", "seed", "speed", "speak", "record", "file", "transcript", "consent", "clone"} <= set(
            seen
        )


PARTS = (
    "banner", "main", "contentinfo", 'heading "ChatTTS" [level=1]', 'textbox "Text to speak"', 'combobox "Voice"',
    'slider "Speed', 'button "Speak"', 'region "Clone a voice"', "status",
)  # fmt: skip


async def test_everything_has_a_name_for_those_who_do_not_see_it(serve, page):
    async with serve() as running:
        await visit(page, running)
        nameless = await page.evaluate(
            """[...document.querySelectorAll('input, select, textarea, button, canvas, section, a, [role=img]')]
            .filter(e => !e.labels?.length && !e.ariaLabel && !e.getAttribute('aria-labelledby'))
            .filter(e => !e.textContent.trim()).map(e => e.outerHTML)"""
        )
        assert nameless == []
        tree = await page.locator("body").aria_snapshot()
        for part in PARTS:
            assert part in tree, part
        assert (
            await page.evaluate("document.querySelectorAll('[style], [onclick], style, script:not([src])').length") == 0
        )


async def test_the_api_is_described_without_anybody_elses_scripts(serve, page):
    async with serve() as running:
        await page.set_viewport_size({"width": 360, "height": 800})
        await page.goto(f"http://127.0.0.1:{running.port}/docs")
        await becomes(page, "!document.getElementById('operations').hasAttribute('aria-busy')")
        document = (await running.client.get("/openapi.json")).json()
        operations = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
        assert set(await page.locator("h2").all_inner_texts()) == operations
        speech = page.locator("section", has_text="OpenAI's speech endpoint")
        assert "temperature" in await speech.inner_text()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await page.is_hidden("#error")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_small_screens_and_both_schemes_are_legible(serve, page, scheme):
    async with serve() as running:
        await page.emulate_media(color_scheme=scheme)
        await visit(page, running)
        for width in (360, 768, 1280):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.set_viewport_size({"width": 360, "height": 800})
        small = await page.evaluate(
            """[...document.querySelectorAll('button, select, input:not(.visually-hidden), .button')]
            .filter(e => e.offsetParent && e.type !== 'checkbox' && e.getBoundingClientRect().height < 24)
            .map(e => e.id)"""
        )
        assert small == []
        pairs = [("--ink", "--paper"), ("--ink", "--sheet"), ("--quiet", "--paper"), ("--quiet", "--sheet"),
                 ("--accent", "--paper"), ("--accent", "--sheet"), ("--on-accent", "--accent")]  # fmt: skip
        for one, other in pairs:
            values = [
                await page.evaluate("n => getComputedStyle(document.documentElement).getPropertyValue(n).trim()", name)
                for name in (one, other)
            ]
            assert contrast(*values) >= 4.5, (scheme, one, other)


def contrast(one, other):
    """Of WCAG."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
