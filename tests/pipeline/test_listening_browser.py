"""The listening page in a real browser: from disk, on a phone, and in MLflow's viewer."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import sounds
from mlflow_server import Server, free_port
from sonolens.intervene.versions import KINDS
from sonolens.report import listening

screens = pytest.importorskip("screens", reason="no playwright")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        screens.chromium() is None, reason=f"no Chromium: none of {screens.BROWSERS} on PATH"
    ),
]

TITLES = ("ia, spoken by s03", "a_very_long_name_of_a_file_without_any_space_in_it_0123456789")
PHONE = {"width": 390, "height": 844}
# MLflow's own: it asks for a user where nobody logs in, and its tables are resized in a loop.
NOT_OURS = ("users/current", "ResizeObserver loop")


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("neue Hörprobe") / "listening.html"
    listening.write(path, [sounds.clip(title) for title in TITLES], "Hören", ["2 of 2 items."])
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with screens.browse() as page:
        yield page


@pytest.fixture
def page(browser) -> Iterator:
    """A page that says nothing wrong and asks for nothing but itself (and MLflow)."""
    said, asked = [], []

    def hear(message):
        if message.type in ("error", "warning"):
            said.append(f"{message.text} {message.location.get('url')}")

    def ask(request):
        asked.append(request.url)

    def fail(error):
        said.append(str(error))

    heard = {"console": hear, "pageerror": fail, "request": ask}
    for event, listener in heard.items():
        browser.on(event, listener)
    yield browser
    for event, listener in heard.items():
        browser.remove_listener(event, listener)
    browser.goto("about:blank")
    browser.set_viewport_size({"width": 1300, "height": 900})
    assert not [line for line in said if not any(word in line for word in NOT_OURS)]
    own = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:")
    assert not [url for url in asked if not url.startswith(own)]


def check_players(frame) -> None:
    """Every player knows its length, and the cursor follows the one that plays."""
    players = frame.locator("audio")
    assert players.count() == len(TITLES) * len(KINDS)
    ready = "() => [...document.querySelectorAll('audio')].every(a => a.readyState > 0)"
    frame.locator("body").evaluate(
        f"async () => {{ while (!({ready})()) await new Promise(done => setTimeout(done, 20)) }}"
    )
    for index in range(players.count()):
        assert players.nth(index).evaluate("audio => audio.duration") == pytest.approx(1, abs=1e-3)
    cursors = frame.locator(".cursor")
    assert not cursors.first.is_visible()
    follow = """async audio => {
        const cursor = audio.closest('.clip').querySelector('.cursor'), seen = []
        await new Promise((done, fail) => {
            audio.addEventListener('ended', done)
            audio.addEventListener('error', () => fail(audio.error.message))
            audio.addEventListener('timeupdate', () => requestAnimationFrame(() => {
                if (!cursor.hidden) seen.push([audio.currentTime, parseFloat(cursor.style.left)])
            }))
            audio.play().catch(fail)
        })
        return seen
    }"""
    seen = players.nth(1).evaluate(follow)
    assert len(seen) >= 2
    assert seen == sorted(seen) and seen[-1][1] > seen[0][1]
    assert not cursors.first.is_visible()  # it ended
    # Back to the middle: the cursor stands over that time.
    players.nth(1).evaluate("""audio => new Promise(done => {
        audio.addEventListener('seeked', done); audio.currentTime = 0.5 })""")
    assert cursors.first.is_visible() and not cursors.nth(1).is_visible()
    left, start, end, picture = frame.locator(".picture").first.evaluate(
        """picture => {
        const {left, right, start, end} = picture.dataset, box = picture.getBoundingClientRect()
        const at = picture.querySelector('.cursor').getBoundingClientRect()
        const share = (at.left + at.width / 2 - box.left) / box.width
        return [share, Number(start), Number(end), [Number(left), Number(right)]]
    }"""
    )
    expected = picture[0] + (0.5 - start) / (end - start) * (picture[1] - picture[0])
    assert left == pytest.approx(expected, abs=0.003)


def test_from_disk(page, path):
    page.goto(path.as_uri())
    check_players(page)


def test_one_player_at_a_time(page, path):
    page.goto(path.as_uri())
    players = page.locator("audio")
    for index in (0, len(KINDS)):
        players.nth(index).evaluate("audio => { audio.loop = true; return audio.play() }")
    page.wait_for_function("document.querySelectorAll('audio')[0].paused")
    assert players.nth(len(KINDS)).evaluate("audio => !audio.paused")
    assert page.locator(".cursor").nth(1).is_visible()


@pytest.mark.parametrize("width", [360, 390, 800, 1300])
def test_fits_every_width_and_can_be_read(page, path, width):
    page.set_viewport_size(PHONE | {"width": width})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate("""[...document.querySelectorAll('body *')].filter(one =>
        [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) &&
        !['SCRIPT', 'STYLE'].includes(one.tagName) &&
        parseFloat(getComputedStyle(one).fontSize) < 12).map(one => one.outerHTML)""")
    assert not small
    # Letters of the picture: given in points for its width in inches.
    shown = page.locator(".picture img").first.evaluate("image => image.clientWidth")
    assert listening.LETTERS / 72 / listening.WIDTH * shown >= 11.5


def test_names_for_those_who_do_not_see(page, path):
    page.goto(path.as_uri())
    for player in page.locator("audio").all():
        assert player.get_attribute("aria-label")
    assert page.get_by_role("img", name="spectrogram").count() == len(TITLES)
    page.set_viewport_size(PHONE)
    for index, title in enumerate(TITLES):
        page.get_by_role("link", name=title).click()
        assert (
            page.locator(".clip").nth(index).evaluate("clip => clip.getBoundingClientRect().top")
            < 5
        )


@pytest.fixture(scope="module")
def artifact(path, tmp_path_factory) -> Iterator[str]:
    """Address of the page among the artefacts of a run behind a real server."""
    server = Server(tmp_path_factory.mktemp("server"), free_port())
    base = f"http://127.0.0.1:{server.port}"

    def call(method: str, where: str, content: bytes) -> dict:
        request = urllib.request.Request(f"{base}/api/2.0/{where}", content, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"{}")

    try:
        server.start()
        run = {"experiment_id": "0", "run_name": "digits", "start_time": 1}
        info = call("POST", "mlflow/runs/create", json.dumps(run).encode())["run"]["info"]
        place = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        where = f"mlflow-artifacts/artifacts/{place}/pages/listening.html"
        call("PUT", where, path.read_bytes())
        yield f"{base}/#/experiments/0/runs/{info['run_id']}/artifacts/pages/listening.html"
    finally:
        server.end()


def test_in_the_viewer_of_mlflow(page, artifact):
    page.goto(artifact)
    frame = page.locator("iframe").element_handle().content_frame()
    frame.get_by_role("heading", name="Hören").wait_for()
    check_players(frame)
    frame.get_by_role("link", name=TITLES[1]).click()
    assert frame.locator(".clip").nth(1).evaluate("clip => clip.getBoundingClientRect().top") < 100
