from __future__ import annotations

import dataclasses
import hashlib
import json
import logging

import numpy as np
import pytest
import soundfile

from sonolens.data import manifest
from sonolens.data.audio import Audio, write_wav
from sonolens.data.corpora import formant_words, fsdd, listing
from sonolens.data.corpora.contract import CorpusError, Recording
from sonolens.store import ArrayStore, read_parquet, write_parquet


@pytest.fixture
def corpus(tmp_path, make_digits):
    """2 speakers x 2 digits x 2 repetitions at 8 kHz."""
    return make_digits(tmp_path / "fsdd" / "recordings", ["anna", "bert"], n_digits=2)


def _found(corpus):
    return fsdd.recordings(corpus, task="digit", partial=True)


def test_manifest_and_store_agree(tmp_path, corpus, generator):
    found = _found(corpus)
    generator.shuffle(found)
    table = manifest.build(
        found, tmp_path / "audio", sample_rate=16000, on_bad_file="stop", source="mine"
    )
    assert tuple(table.columns[: len(manifest.COLUMNS)]) == manifest.COLUMNS
    assert list(table.columns[len(manifest.COLUMNS) :]) == ["digit", "repetition", "official_part"]
    assert table["item_id"].is_monotonic_increasing
    assert len(table) == 8
    assert table["item_id"].iloc[0] == "fsdd/0_anna_0"
    row = table.iloc[0]
    assert row["sha256"] == hashlib.sha256((corpus / row["path"]).read_bytes()).hexdigest()
    assert (row["sample_rate"], row["sample_rate_native"], row["n_channels_native"]) == (
        16000,
        8000,
        1,
    )
    assert row["duration_s"] == pytest.approx(0.1)
    assert row["kept"]
    assert row["source"] == "mine"
    store = ArrayStore(tmp_path / "audio")
    assert store.ragged
    assert list(store.index["item_id"]) == list(table["item_id"])
    assert store.axes["sample_rate"] == 16000
    assert store[0].dtype == np.float32
    assert np.abs(np.fft.rfft(store[store.rows(["fsdd/1_bert_1"])[0]])).argmax() == pytest.approx(
        31, abs=1
    )


def test_bytes_do_not_depend_on_the_order_of_recordings(tmp_path, corpus):
    for name, found in (("a", _found(corpus)), ("b", _found(corpus)[::-1])):
        table = manifest.build(found, tmp_path / name, sample_rate=8000, on_bad_file="stop")
        write_parquet(tmp_path / f"{name}.parquet", table)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a" / "values.npy").read_bytes() == (
        tmp_path / "b" / "values.npy"
    ).read_bytes()


def _spoil(corpus):
    (corpus / "0_anna_0.wav").write_bytes(b"")
    (corpus / "0_bert_1.wav").write_text("no sound")
    write_wav(corpus / "1_anna_0.wav", np.full(80, 0.1), 8000)


def test_stop_names_all_bad_files_and_leaves_nothing(tmp_path, corpus):
    _spoil(corpus)
    with pytest.raises(manifest.ManifestError) as caught:
        manifest.build(_found(corpus), tmp_path / "audio", sample_rate=8000, on_bad_file="stop")
    message = str(caught.value)
    assert "3 of 8" in message
    assert "on_bad_file: skip" in message
    for text in (
        "0_anna_0.wav: empty file",
        "0_bert_1.wav: not audio",
        "1_anna_0.wav: too short: 0.0100 s",
    ):
        assert text in message
    assert [path.name for path in tmp_path.iterdir()] == ["fsdd"]


def test_skip_keeps_the_rows_with_their_reasons(tmp_path, corpus):
    _spoil(corpus)
    table = manifest.build(_found(corpus), tmp_path / "audio", sample_rate=8000, on_bad_file="skip")
    bad = table[~table["kept"]]
    assert len(table) == 8
    assert list(bad["reason"].str[:5]) == ["empty", "not a", "too s"]
    assert bad["duration_s"].isna().all()
    assert (bad["sha256"].str.len() == 64).all()
    assert list(ArrayStore(tmp_path / "audio").index["item_id"]) == list(
        table[table["kept"]]["item_id"]
    )
    report = manifest.report(table)
    assert (report["n_item"], report["n_skipped"], report["n_person"]) == (5, 3, 2)
    assert set(report["skipped"]) == {"empty file, 0 bytes", "not audio, or damaged", "too short"}
    assert report["n_by_sample_rate_native"] == {"8000": 5}
    write_parquet(tmp_path / "manifest.parquet", table)
    assert read_parquet(tmp_path / "manifest.parquet").equals(table)
    json.dumps(report, allow_nan=False)


def test_only_bad_files_stop_even_when_skipping(tmp_path, corpus):
    for path in corpus.iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        manifest.ManifestError, match="8 of 8 recordings are unusable; none is left"
    ):
        manifest.build(_found(corpus), tmp_path / "audio", sample_rate=8000, on_bad_file="skip")


def test_duplicates_are_counted_and_shared_ones_across_persons_told_apart(tmp_path, corpus):
    content = (corpus / "0_anna_0.wav").read_bytes()
    for name in ("0_anna_1.wav", "1_bert_0.wav"):
        (corpus / name).write_bytes(content)
    table = manifest.build(_found(corpus), tmp_path / "audio", sample_rate=8000, on_bad_file="stop")
    report = manifest.report(table)
    assert (report["n_duplicate"], report["n_duplicate_across_persons"]) == (2, 1)


def test_stereo_is_mixed_and_noted(tmp_path, corpus, tone):
    soundfile.write(corpus / "0_anna_0.wav", np.stack([tone(), 0 * tone()], axis=1), 8000)
    table = manifest.build(_found(corpus), tmp_path / "audio", sample_rate=8000, on_bad_file="stop")
    assert table.loc[0, "n_channels_native"] == 2
    np.testing.assert_allclose(ArrayStore(tmp_path / "audio")[0], tone() / 2, atol=1e-4)


def test_computed_recordings_are_hashed_by_their_sound(tmp_path):
    found, _ = formant_words.recordings(3, 1, (35.0, 55.0), 0)
    table = manifest.build(found[:4], tmp_path / "audio", sample_rate=8000, on_bad_file="stop")
    assert table["sha256"].nunique() == 4
    assert (table["path"] == "").all()
    assert (
        table["sha256"].iloc[0]
        == hashlib.sha256(ArrayStore(tmp_path / "audio")[0].tobytes()).hexdigest()
    )


def _recording(name="a", **extra):
    audio = Audio(np.full(800, 0.1, np.float32), 8000, 8000, 1)
    return Recording(name, "p", "p_0", "toy", "x", 0, "", "none", lambda: audio, extra)


def test_item_ids_must_be_single_and_extras_must_not_hide_columns(tmp_path):
    with pytest.raises(manifest.ManifestError, match="twice, e.g. toy/a"):
        manifest.build(
            [_recording(), _recording()], tmp_path / "audio", sample_rate=8000, on_bad_file="stop"
        )
    with pytest.raises(manifest.ManifestError, match="toy/a: extra columns kept, label"):
        manifest.build(
            [_recording(label=1, kept=2)], tmp_path / "audio", sample_rate=8000, on_bad_file="stop"
        )
    with pytest.raises(manifest.ManifestError, match="no recordings"):
        manifest.build([], tmp_path / "audio", sample_rate=8000, on_bad_file="stop")


@pytest.fixture
def published(corpus, monkeypatch):
    """The miniature corpus is the complete one, with its checksum."""
    info = dataclasses.replace(
        fsdd.INFO, n_recordings=8, content_sha256=listing.content_sha256(_found(corpus))
    )
    monkeypatch.setattr(fsdd, "INFO", info)
    return corpus


def _build(found, folder, **options):
    options = {"sample_rate": 16000, "on_bad_file": "skip"} | options
    return manifest.build(found, folder, **options)


def test_published_content_is_verified_whatever_the_rate_and_kept_in_the_file(tmp_path, published):
    table = _build(_found(published)[::-1], tmp_path / "audio", partial=False, source="copy")
    write_parquet(tmp_path / "manifest.parquet", table)
    for made in (table, read_parquet(tmp_path / "manifest.parquet")):
        report = manifest.report(made)
        assert (report["content"], report["warnings"]) == ("verified", [])


@pytest.mark.parametrize("spoil", ["another sound", "unreadable", "one more"])
def test_other_content_is_a_warning_or_an_error(tmp_path, published, tone, caplog, spoil):
    if spoil == "unreadable":
        (published / "0_anna_0.wav").write_bytes(b"")
    else:
        name = "0_anna_0.wav" if spoil == "another sound" else "0_anna_2.wav"
        write_wav(published / name, tone(555), 8000)
    with caplog.at_level(logging.WARNING):
        report = manifest.report(_build(_found(published), tmp_path / "audio"))
    assert report["content"] == "differs"
    assert report["warnings"] == [manifest.DIFFERS]
    assert "fsdd: the recordings are complete" in caplog.text
    json.dumps(report, allow_nan=False)
    with pytest.raises(
        CorpusError, match=r"fsdd: [89] recordings with content SHA-256 .* partial: true"
    ):
        _build(_found(published), tmp_path / "again", partial=False)
    assert not (tmp_path / "again").exists()


def test_fewer_recordings_are_partial_and_other_sources_unknown(tmp_path, published, caplog):
    found = _found(published)
    tables = {
        "partial": _build(found[1:], tmp_path / "a"),
        "unknown": _build([_recording()], tmp_path / "b", partial=False),
    }
    for content, table in tables.items():
        assert (manifest.report(table)["content"], manifest.report(table)["warnings"]) == (
            content,
            [],
        )
    mixed = _build([*found, _recording()], tmp_path / "c")
    assert manifest.report(mixed)["content"] == "unknown"
    assert not caplog.text
