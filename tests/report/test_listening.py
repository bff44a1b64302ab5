"""The listening page as text: what is in it, and that it needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from PIL import Image

import sounds
from sonolens.intervene import versions
from sonolens.report import listening


class Page(HTMLParser):
    """Tags with their attributes, and the visible words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def clips():
    return [sounds.clip("ia"), sounds.clip("<b>au</b> & Söhne", peak=1.5)]


@pytest.fixture(scope="module")
def text(clips):
    return listening.page(clips, "What it hears", ["2 of 7 items.", "Model & maps."])


def content(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


def test_needs_nothing_from_outside(text):
    page = Page(text)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "poster", "action"):
            value = attributes.get(name, "#")
            assert value.startswith(("data:", "#")), (tag, name)
    assert not page.all("link")
    assert not re.findall(r"https?:|@import|url\(", re.sub(r"data:[^\"]+", "", text))
    (policy,) = (m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")
    assert len(text.encode()) < listening.MAX_BYTES


def test_players_hold_the_versions(text, clips):
    players = Page(text).all("audio")
    assert [player["data-kind"] for player in players] == 2 * [
        kind for kinds in listening.GROUPS.values() for kind in kinds
    ]
    assert {player["data-kind"] for player in players} == set(versions.KINDS)
    labels = [player["aria-label"] for player in players]
    assert len(set(labels)) == len(labels)
    for index, player in enumerate(players):
        clip = clips[index // len(versions.KINDS)]
        samples, rate = soundfile.read(io.BytesIO(content(player["src"])), dtype="float32")
        assert rate == clip.sample_rate
        (made,) = (v.waveform for v in clip.versions if v.kind == player["data-kind"])
        peak = max(np.abs(version.waveform).max() for version in clip.versions)
        np.testing.assert_allclose(samples, made / max(1, peak), atol=2**-15)


def test_pictures_have_words_and_a_place_for_the_cursor(text, clips):
    page = Page(text)
    images = page.all("img")
    assert len(images) == len(clips)
    for image in images:
        with Image.open(io.BytesIO(content(image["src"]))) as drawn:
            assert drawn.size == (int(image["width"]), int(image["height"]))
            # The panel's left edge is black, left of it there is white.
            left = round(drawn.width * float(page.all("figure")[0]["data-left"]))
            grey = np.asarray(drawn.convert("L"))
            column = grey[:, left - 3 : left + 4]
            assert (column.min(1) < 60).mean() > 0.5
        assert "spectrogram" in image["alt"]
    place = page.all("figure")[0]
    start_s, end_s = float(place["data-start"]), float(place["data-end"])
    step_s = clips[0].axes["times_s"][1]
    assert (start_s, end_s) == pytest.approx((-step_s / 2, 1 - step_s / 2))


def test_words_say_what_was_measured(text, clips):
    words = re.sub(r"\s+", " ", Page(text).words)
    for needed in (
        "What it hears", "2 of 7 items.", "Model & maps.", "2 clips",
        "A map explains the model, not the world", "<b>au</b> & Söhne", "pointing game", "0.25",
        "undefined", "Item: ia/1.", "Outlined in green", "1.00 s",
    ):  # fmt: skip
        assert needed in words, needed
    for version in clips[0].versions:
        assert f"{version.level_dbfs:.1f} dBFS".replace("-", "−") in words
        assert f"p(ja) = {version.probabilities[0]:.2f}" in words
    assert words.count("turned down by") == 1


def test_a_clip_without_truth_scores_or_sound():
    bare = sounds.clip("bare", truth=None, scores={}, mask=0)
    words = Page(listening.page([bare], "t", [])).words
    assert "1 clip;" in words
    assert "silent" in words
    assert "green" not in words
    assert "Scores" not in words


def test_bytes_are_a_function_of_the_clips(text, clips):
    assert listening.page(clips, "What it hears", ["2 of 7 items.", "Model & maps."]) == text


def test_clips_that_do_not_fit_go_to_further_pages(monkeypatch, clips, tmp_path, text):
    whole = listening.write(tmp_path / "page.html", clips, "t", [])
    assert [path.name for path in whole] == ["page.html"]
    monkeypatch.setattr(listening, "MAX_BYTES", len(text) - 1000)
    paths = listening.write(tmp_path / "page.html", clips, "t", ["About."])
    assert [path.name for path in paths] == ["page.html", "page_2.html"]
    for number, path in enumerate(paths, start=1):
        words = Page(path.read_text()).words
        assert f"Page {number} of 2." in words
        assert "1 clip;" in words
        assert clips[number - 1].title in words


def test_too_much_is_refused(monkeypatch, clips, tmp_path):
    with pytest.raises(listening.ListeningError, match="no clips, need at least one"):
        listening.page([], "t", [])
    monkeypatch.setattr(listening, "MAX_BYTES", 50_000)
    with pytest.raises(listening.ListeningError, match="show fewer or shorter clips"):
        listening.write(tmp_path / "page.html", clips, "t", [])
    assert not list(tmp_path.iterdir())
