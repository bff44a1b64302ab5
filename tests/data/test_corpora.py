from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile

from sonolens.data import manifest, splits
from sonolens.data.audio import write_wav
from sonolens.data.corpora import audiomnist, folder, fsdd, listing, registry
from sonolens.data.corpora.contract import CorpusError, CorpusInfo

SPEAKERS = ["george", "jackson", "lucas"]


def _touch(path):
    """Names are all that listing looks at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_corpus_introduces_itself(name):
    info = registry.load(name).INFO
    assert isinstance(info, CorpusInfo)
    assert info.name == name
    assert info.title
    assert info.licence
    assert info.bibtex.startswith("@")
    assert info.tasks


def test_unknown_names_are_folders():
    assert registry.load("my_recordings") is folder
    assert registry.info("my_recordings") is None
    assert registry.info("fsdd") is fsdd.INFO


@pytest.mark.parametrize("corpus", [fsdd, audiomnist])
def test_absent_and_empty_folders_say_how_to_get_the_corpus(tmp_path, corpus):
    name = corpus.INFO.name
    where = tmp_path / name / "recordings"
    for _ in range(2):
        with pytest.raises(CorpusError) as caught:
            corpus.recordings(where, task="digit", partial=True)
        for text in (
            str(where),
            f"`sonolens data fetch {name}`",
            f"`sonolens data add {name} PATH`",
            corpus.INFO.licence,
        ):
            assert text in str(caught.value)
        where.mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("corpus", [fsdd, audiomnist])
def test_foreign_names_and_tasks_are_refused(tmp_path, corpus):
    _touch(tmp_path / "speech" / "hello.wav")
    with pytest.raises(
        CorpusError, match=r"1 of 1 audio files are not named \{digit\}_.*speech/hello.wav"
    ):
        corpus.recordings(tmp_path, task="digit", partial=True)
    with pytest.raises(CorpusError, match="task 'emotion', need one of digit"):
        corpus.recordings(tmp_path, task="emotion", partial=True)


def test_fsdd_is_read_from_the_names_at_any_depth(tmp_path, make_digits):
    make_digits(tmp_path / "repository" / "recordings", SPEAKERS)
    _touch(tmp_path / "repository" / ".git" / "hook.wav")
    _touch(tmp_path / "__MACOSX" / "0_george_0.wav")
    _touch(tmp_path / "repository" / "metadata.py")
    found = fsdd.recordings(tmp_path, task="digit", partial=True)
    assert len(found) == 60
    assert {item.person_id for item in found} == set(SPEAKERS)
    one = next(item for item in found if item.recording_id == "7_jackson_1")
    assert (one.label, one.class_index, one.person_id) == ("7", 7, "jackson")
    assert one.path == "repository/recordings/7_jackson_1.wav"
    assert one.read().sample_rate == 8000
    assert one.extra == {"digit": 7, "repetition": 1, "official_part": "test"}


def test_the_same_recording_twice_is_refused(tmp_path):
    for name in ("a/3_theo_1.wav", "b/3_theo_1.flac"):
        _touch(tmp_path / name)
    with pytest.raises(
        CorpusError, match=r"3_theo_1 is there twice, as a/3_theo_1.wav and as b/3_theo_1.flac"
    ):
        fsdd.recordings(tmp_path, task="digit", partial=True)


def test_incomplete_fsdd_needs_partial(tmp_path):
    names = [f"{d}_{s}_{i}.wav" for d in range(10) for s in "abcdef" for i in range(50)]
    for name in names:
        _touch(tmp_path / name)
    assert len(fsdd.recordings(tmp_path, task="digit", partial=False)) == 3000
    (tmp_path / "4_c_17.wav").unlink()
    with pytest.raises(
        CorpusError,
        match=r"2999 recordings of 6 persons, need 6 persons x 10 digits x 50; .* c/4: 49",
    ):
        fsdd.recordings(tmp_path, task="digit", partial=False)
    assert len(fsdd.recordings(tmp_path, task="digit", partial=True)) == 2999


def test_audiomnist_digits_come_from_the_name_never_from_the_folder(tmp_path):
    for speaker in ("01", "09", "12"):
        for digit in range(10):
            _touch(tmp_path / "data" / speaker / f"{digit}_{speaker}_0.wav")
    found = audiomnist.recordings(tmp_path, task="digit", partial=True)
    assert Counter(item.class_index for item in found) == {digit: 3 for digit in range(10)}
    assert {item.person_id for item in found} == {"01", "09", "12"}
    sexes = audiomnist.recordings(tmp_path, task="sex", partial=True)
    assert {(item.person_id, item.label, item.class_index) for item in sexes} == {
        ("01", "male", 1),
        ("09", "male", 1),
        ("12", "female", 0),
    }
    _touch(tmp_path / "data" / "03" / "5_04_0.wav")
    with pytest.raises(
        CorpusError, match="data/03/5_04_0.wav: folder says speaker 03, file name says 04"
    ):
        audiomnist.recordings(tmp_path, task="digit", partial=True)


def test_audiomnist_counts_unless_partial(tmp_path):
    _touch(tmp_path / "0_01_0.wav")
    with pytest.raises(
        CorpusError, match="1 recordings of 1 persons, need 60 persons x 10 digits x 50.*01/1: 0"
    ):
        audiomnist.recordings(tmp_path, task="digit", partial=False)
    _touch(tmp_path / "0_61_0.wav")
    with pytest.raises(CorpusError, match="speaker 61, need 01 to 60"):
        audiomnist.recordings(tmp_path, task="digit", partial=True)


def test_incomplete_audiomnist_needs_partial(tmp_path, monkeypatch):
    files = [
        tmp_path / f"{person:02d}" / f"{digit}_{person:02d}_{repetition}.wav"
        for person in range(1, 61)
        for digit in range(10)
        for repetition in range(50)
    ]
    monkeypatch.setattr(listing, "audio_files", lambda *_: files)
    assert len(audiomnist.recordings(tmp_path, task="digit", partial=False)) == 30_000
    files.remove(tmp_path / "07" / "3_07_49.wav")
    with pytest.raises(
        CorpusError,
        match=r"29999 recordings of 60 persons, need 60 persons x 10 digits x 50; .* 07/3: 49",
    ):
        audiomnist.recordings(tmp_path, task="digit", partial=False)
    assert len(audiomnist.recordings(tmp_path, task="digit", partial=True)) == 29_999


def test_content_is_that_of_the_sound_not_of_the_file(tmp_path, make_digits):
    wav = make_digits(tmp_path / "wav", SPEAKERS)
    flac = tmp_path / "flac"
    flac.mkdir()
    for path in wav.iterdir():
        integers, sample_rate = soundfile.read(path, dtype="int16")
        soundfile.write(flac / f"{path.stem}.flac", integers, sample_rate, subtype="PCM_16")
    found = [fsdd.recordings(where, task="digit", partial=True) for where in (wav, flac)]
    digest = listing.content_sha256(found[0])
    assert listing.content_sha256(found[0][::-1]) == listing.content_sha256(found[1]) == digest
    expected = hashlib.sha256()
    for path in sorted(wav.iterdir(), key=lambda path: path.stem):
        expected.update(path.stem.encode() + soundfile.read(path, dtype="int16")[0].tobytes())
    assert digest == expected.hexdigest()
    assert listing.content_sha256(found[0][1:]) != digest
    integers, sample_rate = soundfile.read(wav / "3_lucas_1.wav", dtype="int16")
    integers[5] += np.int16(1)
    soundfile.write(wav / "3_lucas_1.wav", integers, sample_rate, subtype="PCM_16")
    assert listing.content_sha256(found[0]) != digest


def test_audiomnist_meta_with_gaps_and_odd_ages(tmp_path):
    for speaker in ("01", "02", "12", "28"):
        _touch(tmp_path / "data" / speaker / f"0_{speaker}_0.wav")
    meta = {
        "01": {"age": "30", "gender": "female", "accent": "German", "native speaker": "no"},
        "02": {"age": 1234, "gender": "male", "accent": "German"},
        "28": {"age": "1234", "gender": "?", "accent": None},
    }
    (tmp_path / "data" / "audioMNIST_meta.txt").write_text(json.dumps(meta))
    found = {
        item.person_id: item for item in audiomnist.recordings(tmp_path, task="sex", partial=True)
    }
    assert [found[who].label for who in ("01", "02", "12", "28")] == [
        "female",
        "male",
        "female",
        "female",
    ]
    assert found["01"].extra["age_years"] == 30
    assert found["01"].extra["native_speaker"] == "no"
    assert all(math.isnan(found[who].extra["age_years"]) for who in ("02", "12", "28"))
    assert found["28"].extra["accent"] == ""
    assert found["12"].extra["accent"] == ""
    (tmp_path / "data" / "audioMNIST_meta.txt").write_text("{")
    with pytest.raises(CorpusError, match="audioMNIST_meta.txt: not valid JSON"):
        audiomnist.recordings(tmp_path, task="digit", partial=True)


def test_published_blocks_partition_the_speakers():
    everyone = {f"{speaker:02d}" for speaker in range(1, 61)}
    for fold in audiomnist.published_blocks("digit"):
        assert set().union(*fold.values()) == everyone
        assert sum(map(len, fold.values())) == 60
    women = {f"{speaker:02d}" for speaker in audiomnist.FEMALE}
    for fold in audiomnist.published_blocks("sex"):
        assert sum(map(len, fold.values())) == 24 == len(set().union(*fold.values()))
        assert all(2 * len(women & set(part)) == len(part) for part in fold.values())


@pytest.fixture
def own(tmp_path):
    """data/raw/mine with a card that states a licence."""
    where = tmp_path / "raw" / "mine" / "recordings"
    where.mkdir(parents=True)
    (where.parent / "card.md").write_text("# mine\n- Licence: CC0; do what you like.\n")
    return where


def test_own_recordings_by_folders(own):
    for name in ("yes/ann/1.wav", "yes/bob/1.wav", "no/ann/monday/1.flac"):
        _touch(own / name)
    found = folder.recordings(own, task="whatever", partial=False)
    assert [
        (item.recording_id, item.person_id, item.label, item.class_index) for item in found
    ] == [
        ("no/ann/monday/1", "ann", "no", 0),
        ("yes/ann/1", "ann", "yes", 1),
        ("yes/bob/1", "bob", "yes", 1),
    ]
    assert {(item.corpus, item.licence, item.session_id) for item in found} >= {
        ("mine", "CC0", "ann_0")
    }
    _touch(own / "loose.wav")
    with pytest.raises(
        CorpusError, match=r"1 of 4 audio files do not lie in <label>/<person>/, e.g. loose.wav"
    ):
        folder.recordings(own)


def test_own_recordings_by_table(own):
    _touch(own / "x" / "1.wav")
    (own / "recordings.csv").write_text(
        "path,label,person,session,dose\nx/1.wav,yes,007,s1,NA\nx/2.wav,no,08,,2\n",
        encoding="utf-8-sig",
    )
    first, second = folder.recordings(own)
    assert (first.person_id, first.session_id, first.extra) == ("007", "s1", {"dose": "NA"})
    assert (second.person_id, second.session_id, second.class_index) == ("08", "08_0", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nx.wav,a\n", r"recordings.csv: lacks person; it has path, label"),
        ("path,label,person\nx.wav,,p\n", "line 2 has no label"),
        ("path,label,person\n../x.wav,a,p\n", r"line 2: ../x.wav leaves the folder"),
        ("path,label,person\n/etc/x.wav,a,p\n", "line 2: /etc/x.wav leaves the folder"),
        ("path,label,person\nx.wav,a,p\nx.wav,b,p\n", "x.wav is listed twice"),
        ("path,label,person\n", "no rows"),
        ("", "not a table"),
    ],
)
def test_damaged_tables_are_refused(own, text, message):
    _touch(own / "x.wav")
    (own / "recordings.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        folder.recordings(own)


def test_unknown_source_without_a_folder_lists_the_known_ones(tmp_path):
    with pytest.raises(
        CorpusError, match="'fssd' is none of the known corpora audiomnist, formant_words, fsdd"
    ):
        folder.recordings(tmp_path / "raw" / "fssd" / "recordings")


def test_miniature_audiomnist_to_manifest_and_splits(tmp_path, make_digits):
    source = make_digits(
        tmp_path / "data", ["01", "12", "26", "36"], by_speaker=True, sample_rate=48000
    )
    found = audiomnist.recordings(source, task="digit", partial=True)
    table = manifest.build(found, tmp_path / "audio", sample_rate=8000, on_bad_file="stop")
    assert (table["sample_rate_native"] == 48000).all()
    assert len(table) == 80
    splits.check(splits.grouped_folds(table, 6, 0, "person"), table, "person")


def test_genuine_audiomnist_files(real_data, tmp_path):
    source = real_data / "audiomnist_original_sample"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    found = audiomnist.recordings(source, task="digit", partial=True)
    assert [item.label for item in found] == [str(digit) for digit in range(10)]
    table = manifest.build(found, tmp_path / "audio", sample_rate=8000, on_bad_file="stop")
    assert table["person_id"].nunique() == 10
    assert (table["sample_rate_native"] == 48000).all()
    assert list(table["person_id"]) == ["08", "10", "16", "23", "26", "32", "35", "42", "51", "52"]
    assert table["duration_s"].between(0.3, 1.0).all()
    assert list(table[table["sex"] == "female"]["person_id"]) == ["26", "52"]


def test_genuine_fsdd(real_data, tmp_path):
    source = real_data / "fsdd"
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    found = fsdd.recordings(source, task="digit", partial=False)
    assert len(found) == 3000
    assert Counter(item.class_index for item in found) == {d: 300 for d in range(10)}
    table = manifest.build(
        found, tmp_path / "audio", sample_rate=8000, on_bad_file="stop", partial=False
    )
    report = manifest.report(table)
    assert (report["n_person"], report["n_item"], report["n_duplicate"]) == (6, 3000, 0)
    assert (report["content"], report["warnings"]) == ("verified", [])
    assert report["duration_s"]["min"] == pytest.approx(0.14, abs=0.01)
    folds = splits.grouped_folds(table, 6, 0, "person")
    splits.check(folds, table, "person")
    assert len(folds) == 6
    assert {len(fold.test) for fold in folds} == {500}
    shutil.rmtree(tmp_path / "audio")


def test_listing_does_not_decode(tmp_path):
    write_wav(tmp_path / "0_theo_0.wav", [0.1] * 800, 8000)
    _touch(tmp_path / "1_theo_0.wav")
    assert len(fsdd.recordings(tmp_path, task="digit", partial=True)) == 2
