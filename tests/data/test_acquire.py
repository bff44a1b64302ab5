from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sonolens import cli_data
from sonolens.data import acquire
from sonolens.data.acquire import AcquireError
from sonolens.data.audio import write_wav
from sonolens.data.corpora import fsdd
from sonolens.data.corpora.contract import Remote

CONTENT = b"".join(
    hashlib.sha256(str(i).encode()).digest() for i in range(12_000)
)  # 384 kB that do not shrink


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files` with Range and If-Range; what else it does is set per test on the class."""

    protocol_version = "HTTP/1.1"

    def __init__(self, state, *args):
        self.state = state
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        state = self.state
        state["requests"].append(
            (self.command, self.headers.get("Range"), self.headers.get("If-Range"))
        )
        content = state["files"].get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, wanted = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and state["ranges"] and self.headers.get("If-Range") == state["etag"]:
            start = int(wanted[1])
        if start >= len(content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", state["etag"])
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not with_body:
            return
        stop = min(len(content), start + state["break_after"]) if state["breaks"] else len(content)
        state["breaks"] -= bool(state["breaks"])
        self.wfile.write(content[start:stop])
        self.close_connection = stop < len(content)


@pytest.fixture
def server(monkeypatch):
    """State of a local HTTP server: files by path, requests seen, how often and where to break."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(acquire, "RETRY_WAIT_S", 0)
    state = {
        "files": {},
        "requests": [],
        "etag": '"one"',
        "ranges": True,
        "breaks": 0,
        "break_after": 100_000,
    }
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, state))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state["url"] = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path, server):
    server["files"]["/a.zip"] = CONTENT
    return tmp_path / "download" / "a.zip"


@pytest.fixture(autouse=True)
def _folder(request):
    if "target" in request.fixturenames:
        request.getfixturevalue("target").parent.mkdir()


def test_download(server, target):
    seen = []
    acquire.download(
        server["url"] + "/a.zip",
        target,
        len(CONTENT),
        hashlib.sha256(CONTENT).hexdigest(),
        lambda *what: seen.append(what),
    )
    assert target.read_bytes() == CONTENT
    assert seen[-1] == ("download", len(CONTENT), len(CONTENT))
    assert [request[0] for request in server["requests"]] == ["GET"]


def test_a_broken_download_goes_on_within_the_call(server, target):
    server["breaks"] = 2
    acquire.download(server["url"] + "/a.zip", target)
    assert target.read_bytes() == CONTENT
    ranges = [wanted for _, wanted, _ in server["requests"]]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(ranges[1:])
    assert {guard for _, _, guard in server["requests"][1:]} == {'"one"'}


def test_a_broken_download_goes_on_in_the_next_call(server, target, monkeypatch):
    server["breaks"] = 1
    with monkeypatch.context() as patch:
        patch.setattr(acquire, "MAX_FUTILE_ATTEMPTS", 0)
        with pytest.raises(
            AcquireError, match=r"\d{5} bytes are kept, the same command goes on from there"
        ):
            acquire.download(server["url"] + "/a.zip", target)
    assert not target.exists()
    acquire.download(server["url"] + "/a.zip", target)
    assert target.read_bytes() == CONTENT
    start = int(server["requests"][-1][1].removeprefix("bytes=").removesuffix("-"))
    assert 50_000 < start <= 100_000


def test_a_file_that_changed_on_the_server_starts_over(server, target, monkeypatch):
    server["breaks"] = 1
    with monkeypatch.context() as patch:
        patch.setattr(acquire, "MAX_FUTILE_ATTEMPTS", 0)
        with pytest.raises(AcquireError):
            acquire.download(server["url"] + "/a.zip", target)
    server["files"]["/a.zip"], server["etag"] = CONTENT[::-1], '"two"'
    acquire.download(server["url"] + "/a.zip", target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_that_breaks_once_starts_over(server, target):
    server["ranges"], server["breaks"] = False, 1
    acquire.download(server["url"] + "/a.zip", target)
    assert target.read_bytes() == CONTENT


def test_a_server_that_always_truncates_is_given_up(server, target):
    server["ranges"], server["breaks"] = False, 99
    with pytest.raises(AcquireError, match="broke off 3 times without getting further"):
        acquire.download(server["url"] + "/a.zip", target)
    assert not target.exists()
    assert len(server["requests"]) == 4


def test_a_complete_download_is_not_sent_again(server, target):
    for _ in range(2):
        acquire.download(server["url"] + "/a.zip", target)
    assert target.read_bytes() == CONTENT
    assert server["requests"][1][1] == f"bytes={len(CONTENT)}-"


@pytest.mark.parametrize(
    ("size", "digest", "message"),
    [
        (len(CONTENT) + 1, None, f"{len(CONTENT)} bytes, need"),
        (None, "0" * 64, "SHA-256 [0-9a-f]{64}, need 000"),
    ],
)
def test_wrong_size_or_checksum_leaves_nothing(server, target, size, digest, message):
    with pytest.raises(AcquireError, match=message):
        acquire.download(server["url"] + "/a.zip", target, size, digest)
    assert list(target.parent.iterdir()) == []


def test_absent_address(server, target):
    with pytest.raises(
        AcquireError, match="answers 404; the address may have changed, --url takes another"
    ):
        acquire.download(server["url"] + "/b.zip", target)
    assert len(server["requests"]) == 1


def test_unreachable_server(target, server):
    with pytest.raises(AcquireError, match="broke off 3 times"):
        acquire.download("http://127.0.0.1:9/a.zip", target)


def zipped(members: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tarred(members: dict[str, bytes], path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


PACKERS = {"zip": zipped, "tar": tarred}


@pytest.mark.parametrize("kind", PACKERS)
def test_unpacking(tmp_path, kind):
    members = {
        "top/a/1.wav": b"1",
        "top/b.txt": b"22",
        "top/.hidden": b"3",
        "__MACOSX/._1.wav": b"4",
    }
    archive = PACKERS[kind](members, tmp_path / f"a.{kind}")
    (tmp_path / "out").mkdir()
    assert sorted(acquire.unpack(archive, tmp_path / "out")) == ["__MACOSX/._1.wav", "top/.hidden"]
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes()
        for p in (tmp_path / "out").rglob("*.*")
    }
    assert found == {"top/a/1.wav": b"1", "top/b.txt": b"22"}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil"])
def test_paths_that_lead_out_are_refused(tmp_path, kind, name):
    archive = PACKERS[kind]({"good": b"1", name: b"2"}, tmp_path / f"a.{kind}")
    (tmp_path / "deep" / "out").mkdir(parents=True)
    with pytest.raises(AcquireError, match="leads out of the archive"):
        acquire.unpack(archive, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/evil").exists()


def test_links_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(link)
    info = zipfile.ZipInfo("a")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc")
    for name in ("a.tar", "a.zip"):
        with pytest.raises(AcquireError, match="a is a link or device"):
            acquire.unpack(tmp_path / name, tmp_path / "out")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(acquire, "MIN_EXPANDED_LIMIT", 1000)
    (tmp_path / "out").mkdir()
    for archive in (
        zipped({"a": bytes(10**7)}, tmp_path / "a.zip"),
        tarred({"a": bytes(10**7)}, tmp_path / "a.tar"),
    ):
        with pytest.raises(AcquireError, match="that is no corpus"):
            acquire.unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", PACKERS)
def test_damaged_archives_are_refused(tmp_path, kind):
    archive = PACKERS[kind]({"a": CONTENT}, tmp_path / f"a.{kind}")
    (tmp_path / "out").mkdir()
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content if kind == "zip" else content[:-5000])
    with pytest.raises(AcquireError, match=rf"damaged or not a {kind} file"):
        acquire.unpack(archive, tmp_path / "out")
    archive.write_text("<html>Not found</html>")
    with pytest.raises(AcquireError, match=rf"damaged or not a {kind} file"):
        acquire.unpack(archive, tmp_path / "out")


def test_members_that_are_there_twice_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a", "2")
    with pytest.raises(AcquireError, match="is there twice"):
        acquire.unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.fixture
def tools(monkeypatch):
    """Commands that would have run; `fail` makes one of them fail."""
    state = {"commands": [], "fail": ""}

    def run(root, command):
        state["commands"].append(command[1:] if command[0] == sys.executable else command)
        if state["fail"] and state["fail"] in " ".join(command):
            raise AcquireError(f"{state['fail']} failed")

    monkeypatch.setattr(acquire, "_run", run)
    return state


@pytest.fixture
def root(tmp_path):
    where = tmp_path / "project"
    (where / ".dvc").mkdir(parents=True)
    return where


def test_one_folder_gives_its_content(root, tools, tmp_path, make_digits):
    make_digits(tmp_path / "mine" / "sub", ["theo"], n_digits=2)
    (tmp_path / "mine" / ".DS_Store").touch()
    (tmp_path / "mine" / "link.wav").symlink_to(tmp_path / "mine" / "sub" / "0_theo_0.wav")
    seen = []
    added = acquire.add(root, "fsdd", [tmp_path / "mine"], lambda *what: seen.append(what))
    assert added.folder == root / "data/raw/fsdd/recordings"
    assert added.n_files == 4
    assert (added.folder / "sub" / "1_theo_1.wav").is_file()
    assert sorted(Path(name).name for name in added.skipped) == [".DS_Store", "link.wav"]
    assert seen[-1] == ("copy", added.n_bytes, added.n_bytes)
    assert len(seen) == 4
    assert tools["commands"] == [["-m", "dvc", "add", "data/raw/fsdd/recordings"]]
    assert not list((root / ".dvc").rglob("*.wav"))


def test_several_folders_get_a_subfolder_each(root, tools, tmp_path):
    for name in ("one", "two"):
        write_wav(tmp_path / name / "a" / "p" / "1.wav", [0.1] * 800, 8000)
    write_wav(tmp_path / "loose.wav", [0.1] * 800, 8000)
    added = acquire.add(root, "mine", [tmp_path / "one", tmp_path / "two", tmp_path / "loose.wav"])
    names = sorted(p.relative_to(added.folder).as_posix() for p in added.folder.rglob("*.wav"))
    assert names == ["loose.wav", "one/a/p/1.wav", "two/a/p/1.wav"]
    assert "- Licence: unknown" in (root / "data/raw/mine/card.md").read_text()


def test_recordings_that_are_there_are_replaced_only_on_demand(root, tools, tmp_path):
    for name in ("old", "new"):
        write_wav(tmp_path / name / f"{name}.wav", [0.1] * 800, 8000)
    there = acquire.add(root, "mine", [tmp_path / "old"]).folder
    with pytest.raises(AcquireError, match="exists; give --replace"):
        acquire.add(root, "mine", [tmp_path / "new"])
    tools["fail"] = "dvc add"
    with pytest.raises(AcquireError, match="dvc add failed"):
        acquire.add(root, "mine", [tmp_path / "new"], replace=True)
    assert [path.name for path in there.iterdir()] == ["old.wav"]
    tools["fail"] = ""
    acquire.add(root, "mine", [tmp_path / "new"], replace=True)
    assert [path.name for path in there.iterdir()] == ["new.wav"]


def test_recordings_already_in_place_are_only_tracked(root, tools, make_digits):
    there = make_digits(root / "data/raw/fsdd/recordings", ["theo"], n_digits=1)
    assert acquire.add(root, "fsdd", [there]).n_files == 2
    assert len(tools["commands"]) == 1


@pytest.mark.parametrize(
    ("source", "paths", "message"),
    [
        ("../x", ["mine"], "not a name of a source"),
        ("formant_words", ["mine"], "computed by the project"),
        ("mine", ["absent"], "absent: not found"),
        ("mine", ["empty"], "no files to copy"),
        ("mine", [], "no path given"),
        ("mine", ["mine", "other/mine"], "two of the paths would become mine/hello.wav"),
        ("mine", ["."], "overlaps with"),
        (
            "fsdd",
            ["mine"],
            "fsdd: not what it should be: .* not named {digit}_{speaker}_{index}.wav",
        ),
    ],
)
def test_refusals_change_nothing(root, tools, tmp_path, source, paths, message):
    for name in ("mine", "other/mine"):
        write_wav(tmp_path / name / "hello.wav", [0.1] * 800, 8000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AcquireError, match=message):
        acquire.add(root, source, [tmp_path / path for path in paths])
    assert not (root / "data").exists()
    assert tools["commands"] == []


def test_a_folder_without_dvc_and_a_full_disk_are_refused(root, tools, tmp_path, monkeypatch):
    write_wav(tmp_path / "mine" / "hello.wav", [0.1] * 800, 8000)
    with pytest.raises(AcquireError, match="no .dvc folder"):
        acquire.add(tmp_path, "mine", [tmp_path / "mine"])
    monkeypatch.setattr(acquire, "IMPORT_COPIES", 10**15)
    with pytest.raises(AcquireError, match="GB free, need about"):
        acquire.add(root, "mine", [tmp_path / "mine"])


@pytest.fixture
def published(server, tmp_path, monkeypatch, make_digits):
    """A miniature of the published archive, with a wrapper folder and other files."""
    monkeypatch.setattr(fsdd, "N_PERSONS", 2)
    monkeypatch.setattr(fsdd, "N_REPETITIONS", 2)
    files = make_digits(tmp_path / "published", ["ann", "bob"])
    members = {f"top/recordings/{path.name}": path.read_bytes() for path in files.iterdir()}
    content = zipped(members | {"top/README.md": b"# FSDD"}, tmp_path / "a.zip").read_bytes()
    server["files"]["/master.zip"] = content
    remote = Remote(server["url"] + "/master.zip", None, hashlib.sha256(content).hexdigest())
    info = fsdd.CorpusInfo("fsdd", "Digits", "CC BY-SA 4.0", "@misc{x}", remote)
    monkeypatch.setattr(fsdd, "INFO", info)
    return server


def test_fetch_asks_first_then_brings_everything_in(root, tools, published):
    offers = []
    assert acquire.fetch(root, "fsdd", confirm=lambda offer: bool(offers.append(offer))) is None
    assert [request[0] for request in published["requests"]] == ["HEAD"]
    assert (offers[0].licence, offers[0].size_bytes) == (
        "CC BY-SA 4.0",
        len(published["files"]["/master.zip"]),
    )
    published["breaks"], published["break_after"] = 1, 40_000
    added = acquire.fetch(root, "fsdd", confirm=lambda offer: True)
    assert added is not None
    assert added.n_files == 41
    assert (added.folder / "recordings/3_bob_1.wav").is_file()
    assert not [path for path in (root / ".dvc").rglob("*") if path.is_file()]
    with pytest.raises(AcquireError, match="exists; give --replace"):
        acquire.fetch(root, "fsdd", confirm=lambda offer: True)


def test_fetch_refuses_an_incomplete_corpus_and_keeps_the_download(
    root, tools, published, monkeypatch
):
    monkeypatch.setattr(fsdd, "N_PERSONS", 3)
    with pytest.raises(AcquireError, match="40 recordings of 2 persons, need 3"):
        acquire.fetch(root, "fsdd", confirm=lambda offer: True)
    assert not (root / "data/raw/fsdd").exists()
    monkeypatch.setattr(fsdd, "N_PERSONS", 2)
    published["requests"].clear()
    assert acquire.fetch(root, "fsdd", confirm=lambda offer: True) is not None
    assert published["requests"][-1][1] is not None


def test_fetch_of_a_damaged_archive_starts_afresh(root, tools, server):
    server["files"]["/a.zip"] = b"no archive at all"
    for _ in range(2):
        with pytest.raises(AcquireError, match="mine.zip: damaged or not a zip file"):
            acquire.fetch(root, "mine", url=server["url"] + "/a.zip", confirm=lambda offer: True)
    assert not [path for path in (root / ".dvc").rglob("*") if path.is_file()]
    assert not (root / "data").exists()


def test_fetch_of_own_archives(root, tools, server, tmp_path):
    members = {"yes/ann/1.wav": b"1", "no/ann/1.wav": b"2"}
    server["files"]["/x.tar.gz"] = tarred(members, tmp_path / "x.tar.gz").read_bytes()
    offers = []
    acquire.fetch(
        root,
        "mine",
        url=server["url"] + "/x.tar.gz",
        confirm=lambda offer: offers.append(offer) or True,
    )
    assert offers[0].licence == "unknown"
    assert (root / "data/raw/mine/recordings/yes/ann/1.wav").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("source", "url", "message"),
    [
        ("mine", None, "no published archive is known; give one with --url"),
        ("mine", "file:///etc/passwd", "need an http or https address"),
    ],
)
def test_fetch_needs_an_address(root, tools, source, url, message):
    with pytest.raises(AcquireError, match=message):
        acquire.fetch(root, source, url=url, confirm=lambda offer: True)


def test_list(root, tools, tmp_path, make_digits):
    make_digits(root / "data/raw/fsdd/recordings", ["theo"], n_digits=1)
    (root / "data/raw/mine").mkdir()
    (root / "data/raw/mine/recordings.dvc").touch()
    rows = {row.name: row for row in acquire.list_sources(root)}
    assert {name: row.state for name, row in rows.items()} == {
        "audiomnist": "absent",
        "formant_words": "embedded",
        "fsdd": "present",
        "mine": "tracked",
        "mnist": "absent",
        "sklearn_digits": "embedded",
    }
    assert rows["fsdd"].n_files == 2
    assert rows["audiomnist"].tasks == ("digit", "sex")
    assert rows["mine"].licence == "unknown"


def _run(*command, cwd):
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    answer = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=True, env=environment
    )
    return answer.stdout


def test_dvc_and_git_know_of_added_recordings_and_no_foreign_path(tmp_path, make_digits):
    root, mine = tmp_path / "project", make_digits(tmp_path / "elsewhere", ["theo"], n_digits=2)
    root.mkdir()
    _run("git", "init", "--quiet", cwd=root)
    _run(sys.executable, "-m", "dvc", "init", "--quiet", cwd=root)
    with contextlib.chdir(root):
        answer = CliRunner().invoke(cli_data.app, ["add", "fsdd", str(mine)])
        assert answer.exit_code == 0, answer.output
        again = CliRunner().invoke(cli_data.app, ["add", "fsdd", str(mine)])
    assert again.exit_code == 1
    assert "--replace" in again.output.replace("\n", "")
    text = (root / "data/raw/fsdd/recordings.dvc").read_text()
    assert yaml.safe_load(text)["outs"][0]["path"] == "recordings"
    assert "deps" not in yaml.safe_load(text)
    assert str(tmp_path) not in text
    assert "elsewhere" not in text
    staged = set(_run("git", "diff", "--cached", "--name-only", cwd=root).split())
    assert {
        f"data/raw/fsdd/{name}" for name in ("recordings.dvc", ".gitignore", "card.md")
    } <= staged
    assert not any(name.endswith(".wav") for name in staged)
    assert _run(sys.executable, "-m", "dvc", "status", "--quiet", cwd=root) == ""


def test_list_and_fetch_on_the_command_line(root, tools, published):
    with contextlib.chdir(root):
        listed = CliRunner().invoke(cli_data.app, ["list"])
        declined = CliRunner().invoke(cli_data.app, ["fetch", "fsdd"], input="n\n")
        fetched = CliRunner().invoke(cli_data.app, ["fetch", "fsdd", "--yes"])
    assert listed.exit_code == 0
    assert "formant_words" in listed.output
    assert declined.exit_code == 1
    assert "licence CC BY-SA 4.0" in declined.output
    assert fetched.exit_code == 0, fetched.output
    assert "fsdd: 41 files" in fetched.output
