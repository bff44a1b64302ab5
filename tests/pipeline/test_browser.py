"""What a user sees of the runs: MLflow's own pages in a real browser, by `sonolens ui`'s links."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from PIL import Image

import project
from sonolens import track
from sonolens.data.audio import write_wav

screens = pytest.importorskip("screens", reason="no playwright")

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.browser,
    pytest.mark.skipif(
        screens.chromium() is None, reason=f"no Chromium: none of {screens.BROWSERS} on PATH"
    ),
]

VARIED, VALUES = "digits.report.n_resamples", {"100", "150"}
LISTEN = "plots/pages/listen.html"
# MLflow's own: it asks for a user where nobody logs in, and its tables are resized in a loop.
NOT_OURS = ("users/current", "ResizeObserver loop")


@dataclass
class Shown:
    """A repository whose runs are shown: addresses by what they show, names of its two rows."""

    root: Path
    links: dict[str, str]
    names: tuple[str, str]

    @property
    def own(self) -> str:
        """Name of the row of the workspace, which alone has cached pictures."""
        return f"digits-{track.published_key(self.root, 'digits')[:6]}"

    @property
    def base(self) -> str:
        return self.links["digits"].split("/#")[0]


@pytest.fixture(scope="module")
def shown(repro, tmp_path_factory, tone) -> Iterator[Shown]:
    """Two experiments, rebuilt from git and files, the second with a page to listen to."""
    root = project.copy(repro, tmp_path_factory.mktemp("browser") / "neue Hörprobe")
    values = project.read_yaml(root / "params.yaml")["digits"]["report"]["n_resamples"]
    assert str(values) in VALUES
    (other,) = VALUES - {str(values)}
    project.run(
        root, "dvc", "exp", "run", "-n", "finer", "-S", f"{VARIED}={other}", "digits-publish",
        SONOLENS_TRACKING="off",
    )  # fmt: skip
    project.run(
        root, sys.executable, "-m", "sonolens.cli", "track", "sync", PYTHONPATH=str(root / "src")
    )
    names = [row["name"] for row in project.level(project.rows(root), "experiment")]
    assert len(names) == 2
    page = tmp_path_factory.mktemp("page") / Path(LISTEN).name
    _write_page(page, tone)
    _log(root, page, Path(LISTEN).parent.as_posix())
    environment = project.environment(PYTHONPATH=str(root / "src"), PYTHONUNBUFFERED="1")
    options = [part for name in names for part in ("--compare", name)]
    with screens.serve(root, *options, environment=environment) as links:
        yield Shown(root, links, (names[0], names[1]))


def _log(root: Path, path: Path, folder: str) -> None:
    """Add a file to the artefacts of the workspace's row, as later studies' stages do."""
    store = track.open_store(root)
    experiment = store.client.get_experiment_by_name("digits")
    row = store.row(experiment.experiment_id, track.published_key(root, "digits"))
    store.client.log_artifact(row.info.run_id, str(path), folder)


def _write_page(path: Path, tone: Callable) -> None:
    """One file with a sound in it, as other studies write; its script says how long it is."""
    sound = path.with_suffix(".wav")
    write_wav(sound, tone(duration_s=0.5), 8000)
    data = base64.b64encode(sound.read_bytes()).decode()
    sound.unlink()
    path.write_text(
        f"""<!doctype html><meta charset="utf-8"><h1>Hören und sehen</h1>
<audio controls preload="auto" src="data:audio/wav;base64,{data}"></audio><p id="length"></p>
<script>
const audio = document.querySelector("audio")
const tell = () => {{ document.querySelector("#length").textContent = audio.duration + " s" }}
audio.readyState ? tell() : audio.addEventListener("loadedmetadata", tell)
</script>""",
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with screens.browse() as page:
        yield page


@pytest.fixture
def page(browser) -> Iterator:
    """A page whose console stays without errors, but for MLflow's own."""
    said: list[str] = []
    heard = {
        "console": lambda message: (
            said.append(f"{message.text} {message.location.get('url')}")
            if message.type == "error"
            else None
        ),
        "pageerror": lambda error: said.append(str(error)),
    }
    with ExitStack() as stack:
        for event, listener in heard.items():
            browser.on(event, listener)
            stack.callback(browser.remove_listener, event, listener)
        browser.goto("about:blank")
        yield browser
    assert not [line for line in said if not any(word in line for word in NOT_OURS)]


def test_link_opens_the_table_with_params_and_figures(shown, page):
    screens.open_runs(page, shown.links["digits"])
    for name in shown.names:
        page.get_by_role("link", name=name, exact=True).wait_for()
    # The view for training, not the one for language models, and nothing in front of it.
    page.get_by_role("link", name="Models", exact=True).wait_for()
    assert page.get_by_text("Evaluation runs").count() == 0
    assert page.locator("[role=dialog]").count() == 0

    def cells(column: str) -> set[str]:
        found = page.locator(f'.ag-row [col-id="{column}"]')
        found.first.wait_for()
        return {text.strip() for text in found.all_inner_texts()}

    assert cells(f"params.`{VARIED}`") == VALUES
    summary = json.loads((shown.root / "metrics/digits/summary.json").read_text())
    (accuracy,) = cells("metrics.`accuracy_person`")
    assert float(accuracy) == pytest.approx(summary["accuracy_person"])
    assert page.locator(".ag-header-cell", has_text="accuracy_person").count() >= 1


def test_link_compares_rows(shown, page):
    (link,) = (link for what, link in shown.links.items() if what.endswith("compared"))
    assert not {'"', "[", " "} & set(link)  # a terminal would end the address there
    screens.open_comparison(page, link)
    page.get_by_text("Comparing 2 Runs").wait_for()
    for name in shown.names:
        page.get_by_role("cell", name=name, exact=True).first.wait_for()
    row = page.get_by_role("row").filter(has_text=VARIED)
    assert set(row.first.inner_text().split()) == {VARIED, *VALUES}
    assert page.get_by_role("row").filter(has_text="digits.train.epochs").count() == 0
    # Intervals alone differ between these two: `finer` is drawn from more resamples.
    assert page.get_by_text(re.compile(r"_ci_(low|high)$")).count() > 0


def test_run_page_shows_pictures_and_curves(shown, page):
    picture = next((shown.root / "plots/digits/pages/report").glob("attributions_*.png"))
    path = f"plots/pages/report/{picture.name}"
    screens.open_runs(page, shown.links["digits"])
    screens.open_artifact(page, shown.own, path)
    image = page.get_by_alt_text(path)
    image.wait_for()
    with Image.open(picture) as drawn:
        assert image.evaluate("image => image.naturalWidth") == drawn.width
    page.get_by_role("tab", name="Model metrics", exact=True).click()
    page.get_by_text("val_loss", exact=True).first.wait_for()


def test_html_page_is_rendered_and_its_sound_can_be_played(shown, page):
    screens.open_runs(page, shown.links["digits"])
    screens.open_artifact(page, shown.own, LISTEN)
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="Hören und sehen").wait_for()
    frame.get_by_text("0.5 s", exact=True).wait_for()


def test_rows_are_chosen_by_name_experiment_or_id(shown, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = track.open_store(shown.root)
    (latest,) = (link for what, link in track.ui_links(store, shown.base) if "latest 2" in what)
    ids = _ids(latest)
    (chosen,) = (link for what, link in shown.links.items() if what.endswith("compared"))
    assert set(_ids(chosen)) == set(ids)
    by_other_words = track.ui_links(store, shown.base, ["finer", *ids])[-1][1]
    assert set(_ids(by_other_words)) == set(ids)
    with pytest.raises(track.TrackingError, match="found 1 row to compare, need two"):
        track.ui_links(store, shown.base, ["finer"])
    with pytest.raises(track.TrackingError, match=f"coarser: no row .* {shown.names[0]}"):
        track.ui_links(store, shown.base, ["finer", "coarser"])


def _ids(link: str) -> list[str]:
    return json.loads(parse_qs(link.split("?")[1])["runs"][0])


def test_pictures_for_the_docs(shown, page, tmp_path):
    for row in screens.checked(shown.root, "screens"):
        if row.page.endswith(".png"):
            own = next((shown.root / "plots/digits/pages/report").glob("attributions_*.png"))
            row = screens.Picture(**vars(row) | {"page": f"plots/pages/report/{own.name}"})
        target = tmp_path / f"{row.image}.png"
        screens.take(page, shown.root, shown.links, row, target)
        content = screens.shrink(target, row.max_width, 1000 * row.max_kilobytes)
        assert len(content) > 5000
    # The last one is of a file of the run; where that lies is not to be read in it.
    assert str(shown.root) not in page.locator("main").inner_text()
