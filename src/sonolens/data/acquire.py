"""Bringing recordings in: copy or download, unpack safely, track with DVC without a foreign path.

Recordings lie in data/raw/<source>/recordings. DVC gets them as a plain output, so the `.dvc`
file holds a hash and no address of anybody's disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from sonolens.data.corpora import folder as own_folder
from sonolens.data.corpora import registry
from sonolens.data.corpora.contract import CorpusError, CorpusInfo
from sonolens.pipeline import scratch
from sonolens.store import read_json, write_json

RAW = "data/raw"
CHUNK_BYTES = 1 << 14
COPY_BYTES = 1 << 20
TIMEOUT_S = (15, 60)
MAX_FUTILE_ATTEMPTS = 3
RETRY_WAIT_S = 1.0
# Sound hardly shrinks; what swells a hundredfold is no corpus.
MAX_EXPANSION = 100
MIN_EXPANDED_LIMIT = 100 * 2**20
MAX_MEMBERS = 2_000_000
DOWNLOAD_COPIES = 4
IMPORT_COPIES = 2
NO_GIT = "`git init` makes one, `dvc config --local core.no_scm true` does without"

Progress = Callable[[str, int, int | None], None]


class AcquireError(RuntimeError):
    """Recordings could not be brought in; the message says why and what to do."""


@dataclass(frozen=True)
class Offer:
    """What is about to be downloaded; size in bytes, None where the server does not say."""

    source: str
    title: str
    licence: str
    url: str
    size_bytes: int | None


@dataclass(frozen=True)
class Added:
    """What was brought in.

    Attributes
    ----------
    source, folder
        Name, and the folder that DVC tracks.
    n_files, n_bytes
        In that folder.
    skipped
        Hidden files, links and devices that were left behind.
    tracked
        Files that `git add` took, relative to the root; empty outside a git repository.
    remark
        Why no classifier can be trained on own recordings as they lie; empty where one can.
    """

    source: str
    folder: Path
    n_files: int
    n_bytes: int
    skipped: tuple[str, ...]
    tracked: tuple[str, ...]
    remark: str = ""


@dataclass(frozen=True)
class SourceRow:
    """A line of `sonolens data list`; state: embedded, present, tracked (not here) or absent."""

    name: str
    title: str
    licence: str
    state: str
    n_files: int
    tasks: tuple[str, ...]


def silent(what: str, done: int, total: int | None) -> None:
    """Progress that shows nothing."""


def add(
    root: Path,
    source: str,
    paths: Sequence[Path],
    progress: Progress = silent,
    *,
    replace: bool = False,
) -> Added:
    """Copy recordings into data/raw/<source>/recordings and track them.

    Parameters
    ----------
    root
        Folder that holds .dvc.
    source
        Name of a known corpus, or a new one.
    paths
        One folder: its content. Several: a subfolder each, named like them; files lie beside those.
        The folder data/raw/<source>/recordings itself: nothing is copied, only tracked.
    progress
        Called with (what, bytes done, bytes in all).
    replace
        Put the new recordings in the place of those that are there.

    Returns
    -------
    Added

    Raises
    ------
    AcquireError
        If the name is no name, recordings are there already, a path is missing or holds nothing,
        the disk is too small, a known corpus is laid out otherwise, or DVC refuses; nothing is
        changed then. If git refuses, the recordings are in, and the message names the files to
        add.
    """
    info = _check_source(root, source)
    target = root / RAW / source / "recordings"
    if [path.resolve() for path in paths] == [target.resolve()] and target.is_dir():
        _check_layout(source, info, target, partial=True)
        _dvc_add(root, source)
        return _stage(root, source, target, ())
    _refuse_existing(target, source, replace)
    files, skipped = _plan(paths, target)
    n_bytes = sum(path.stat().st_size for path, _ in files)
    _check_space(root, n_bytes * IMPORT_COPIES)
    with _incoming(root, source) as staging:
        done = 0
        for path, name in files:
            done += _copy(path, staging / name)
            progress("copy", done, n_bytes)
        return _install(root, source, info, staging, tuple(skipped), partial=True)


def fetch(
    root: Path,
    source: str,
    *,
    url: str | None = None,
    confirm: Callable[[Offer], bool],
    progress: Progress = silent,
    replace: bool = False,
) -> Added | None:
    """Download a published archive, unpack it and `add` it.

    A broken download is resumed where it stopped, by the next attempt or by the next call.

    Parameters
    ----------
    root, source, progress, replace
        As for `add`.
    url
        Another address than the published one; needed for a source that is no known corpus.
    confirm
        Sees size and licence before anything is downloaded; False stops.

    Returns
    -------
    Added or None
        None when `confirm` said no.

    Raises
    ------
    AcquireError
        As for `add`; also if there is no address, the server refuses or breaks off, or the
        archive is damaged, has another size or checksum, or holds paths that lead out of it,
        links or too much.
    """
    info = _check_source(root, source)
    target = root / RAW / source / "recordings"
    _refuse_existing(target, source, replace)
    remote = info.remote if info else None
    if url is None and remote is None:
        raise AcquireError(
            f"{source}: no published archive is known; give one with --url, or use "
            "`sonolens data add`"
        )
    address = url or (remote.url if remote else "")
    if urlsplit(address).scheme not in ("http", "https"):
        raise AcquireError(f"{address}: need an http or https address")
    size_bytes = (remote.size_bytes if remote else None) or _size_at(address)
    licence = info.licence if info else own_folder.UNKNOWN_LICENCE
    if not confirm(Offer(source, info.title if info else source, licence, address, size_bytes)):
        return None
    _check_space(root, (size_bytes or 0) * DOWNLOAD_COPIES)
    published = remote if url is None else None
    checksum = remote.sha256 if remote else None
    archive = (
        scratch(root, "download")
        / f"{source}.{_archive_type(address, remote.archive if remote else None)}"
    )
    download(address, archive, published.size_bytes if published else None, checksum, progress)
    with _incoming(root, source) as staging:
        try:
            skipped = unpack(archive, staging, progress)
        except AcquireError:
            _forget(archive)
            raise
        _strip_single_folder(staging)
        added = _install(root, source, info, staging, tuple(skipped), partial=url is not None)
    _forget(archive)
    return added


def list_sources(root: Path) -> list[SourceRow]:
    """Known corpora and the folders below data/raw, by name."""
    raw = root / RAW
    own = {path.name for path in raw.iterdir() if path.is_dir()} if raw.is_dir() else set()
    return [_source_row(raw / name) for name in sorted(own | set(registry.NAMES))]


def _source_row(folder: Path) -> SourceRow:
    info = registry.info(folder.name)
    files = folder / "recordings"
    n_files = sum(len(names) for _, _, names in os.walk(files))
    if info and info.embedded:
        state = "embedded"
    elif n_files:
        state = "present"
    else:
        state = "tracked" if (folder / "recordings.dvc").is_file() else "absent"
    if info:
        return SourceRow(info.name, info.title, info.licence, state, n_files, info.tasks)
    licence = own_folder.card_licence(folder / "card.md")
    return SourceRow(folder.name, "own recordings", licence, state, n_files, ("label",))


def _check_source(root: Path, source: str) -> CorpusInfo | None:
    if not (root / ".dvc").is_dir():
        raise AcquireError(
            f"{root}: no .dvc folder; run from the folder that holds dvc.yaml, or `dvc init` there"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", source):
        raise AcquireError(f"{source!r}: not a name of a source; use letters, digits, _ and - only")
    info = registry.info(source)
    if info and info.embedded:
        raise AcquireError(f"{source}: computed by the project, there is nothing to bring in")
    return info


def _refuse_existing(target: Path, source: str, replace: bool) -> None:
    if target.exists() and not replace:
        raise AcquireError(
            f"{target}: exists; give --replace to put other recordings there, or use another "
            f"name than {source}"
        )


def _check_space(root: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(root).free
    if n_bytes > free:
        raise AcquireError(
            f"{root}: {free / 1e9:.1f} GB free, need about {n_bytes / 1e9:.1f} GB for the "
            "recordings and DVC's cache"
        )


def _plan(paths: Sequence[Path], target: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """Files to copy with their names below the target, and what is left behind."""
    if not paths:
        raise AcquireError("no path given, need a folder or files")
    files: list[tuple[Path, str]] = []
    skipped: list[str] = []
    for path in paths:
        if not path.exists():
            raise AcquireError(f"{path}: not found")
        inside = target.resolve()
        if inside.is_relative_to(path.resolve()) or path.resolve().is_relative_to(inside):
            raise AcquireError(f"{path}: overlaps with {target}; give a folder outside of it")
        if not path.is_dir():
            files.append((path, path.name))
            continue
        prefix = "" if len(paths) == 1 else path.resolve().name
        for file, name, usable in _walk(path):
            if usable:
                files.append((file, f"{prefix}/{name}" if prefix else name))
            else:
                skipped.append(str(file))
    names = [name for _, name in files]
    if not files:
        detail = f"; {len(skipped)} hidden files or links were left out" if skipped else ""
        raise AcquireError(f"{', '.join(map(str, paths))}: no files to copy{detail}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise AcquireError(f"two of the paths would become {twice}; rename one of the folders")
    return files, skipped


def _walk(folder: Path) -> Iterator[tuple[Path, str, bool]]:
    """Files below a folder, their relative POSIX names, whether they are visible regular files."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in links
        )
        for name in sorted([*names, *links]):
            path = Path(parent, name)
            regular = stat.S_ISREG(path.lstat().st_mode) and not name.startswith(".")
            yield path, path.relative_to(folder).as_posix(), regular


def _copy(path: Path, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(path, target)
    except OSError as error:
        raise AcquireError(f"{path}: cannot be copied ({error.strerror or error})") from error
    return target.stat().st_size


@contextmanager
def _incoming(root: Path, source: str) -> Iterator[Path]:
    """A folder <…>/<source>/recordings to collect files in; removed at the end in any case."""
    base = scratch(root, "incoming") / str(os.getpid())
    shutil.rmtree(base, ignore_errors=True)
    staging = base / source / "recordings"
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(base)


def _check_layout(source: str, info: CorpusInfo | None, folder: Path, partial: bool) -> None:
    """A known corpus must look like itself; nothing can be said of others."""
    if info is None:
        return
    try:
        corpus = registry.load(source)
        if info.modality == "image":
            corpus.pictures(folder, partial=partial)
        else:
            corpus.recordings(folder, task=info.tasks[0], partial=partial)
    except CorpusError as error:
        raise AcquireError(f"{source}: not what it should be: {error}") from error


def _install(
    root: Path,
    source: str,
    info: CorpusInfo | None,
    staging: Path,
    skipped: tuple[str, ...],
    partial: bool,
) -> Added:
    """Move a complete folder to its place and track it; if DVC refuses, the old one is back."""
    _check_layout(source, info, staging, partial)
    target = root / RAW / source / "recordings"
    target.parent.mkdir(parents=True, exist_ok=True)
    before = staging.parent / "before"
    if target.exists():
        shutil.move(target, before)
    shutil.move(staging, target)
    try:
        _dvc_add(root, source)
    except BaseException:
        shutil.rmtree(target)
        if before.exists():
            shutil.move(before, target)
        elif not any(target.parent.iterdir()):
            target.parent.rmdir()
        raise
    return _stage(root, source, target, skipped)


def _dvc_add(root: Path, source: str) -> None:
    # With --quiet, DVC would not even say why it failed.
    _run(root, [sys.executable, "-m", "dvc", "add", f"{RAW}/{source}/recordings"])


def _stage(root: Path, source: str, target: Path, skipped: tuple[str, ...]) -> Added:
    """Let git know of the .dvc file, so that queued experiments see the recordings."""
    sizes = [file.stat().st_size for file, _, usable in _walk(target) if usable]
    card = target.parent / "card.md"
    if not card.exists():
        card.write_text(_card_stub(source), encoding="utf-8")
    names = [f"{RAW}/{source}/{name}" for name in ("recordings.dvc", ".gitignore", "card.md")]
    tracked = tuple(name for name in names if (root / name).is_file()) if _in_git(root) else ()
    if tracked:
        _run(root, ["git", "add", "--", *tracked])
    return Added(source, target, len(sizes), sum(sizes), skipped, tracked, _remark(source, target))


def _remark(source: str, target: Path) -> str:
    """Own recordings may be of any kind, so a layout that is not ours is no error here."""
    if registry.info(source):
        return ""
    try:
        registry.load(source).recordings(target, task="label", partial=True)
    except CorpusError as error:
        return str(error)
    return ""


def _run(root: Path, command: list[str]) -> None:
    """Raises AcquireError with what the program says."""
    answer = subprocess.run(
        command,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )
    if answer.returncode != 0:
        name = " ".join(["dvc", *command[3:]] if command[0] == sys.executable else command)
        said = (answer.stderr or answer.stdout).strip()
        advice = f"; {NO_GIT}" if "not a git repository" in said else ""
        raise AcquireError(f"`{name}` failed: {said}{advice}")


def _in_git(root: Path) -> bool:
    if shutil.which("git") is None:
        return False
    command = ["git", "-C", str(root), "rev-parse", "--is-inside-work-tree"]
    return (
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        == "true"
    )


def _card_stub(source: str) -> str:
    return (
        f"# {source}\nOwn recordings. Layout: `<label>/<person>/<file>.wav`, or a recordings.csv "
        "with the columns "
        "path, label, person.\n\n- Licence: unknown\n- Citation:\n- How to get it:\n- Traps:\n"
    )


def _size_at(url: str) -> int | None:
    """Content-Length of an address, None where the server keeps it to itself."""
    import requests

    try:
        answer = requests.head(
            url, allow_redirects=True, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"}
        )
    except requests.RequestException as error:
        raise AcquireError(
            f"{url}: cannot be reached ({error}); check the connection and try again"
        ) from error
    if answer.status_code in (404, 410):
        raise _refused(url, answer.status_code)
    length = answer.headers.get("Content-Length", "")
    return int(length) if answer.status_code == 200 and length.isdigit() and int(length) else None


def _refused(url: str, status: int) -> AcquireError:
    return AcquireError(
        f"{url}: the server answers {status}; the address may have changed, --url takes another"
    )


class _Broken(Exception):
    """A download stopped before its end; another attempt may go on."""


def download(
    url: str,
    target: Path,
    size_bytes: int | None = None,
    sha256: str | None = None,
    progress: Progress = silent,
) -> None:
    """Download to `target` by way of `target`.part, which later calls resume.

    A part is resumed with Range and If-Range, so a file that changed on the server starts over.

    Parameters
    ----------
    url, target
        From where, to where.
    size_bytes, sha256
        Checked where given.
    progress
        Called with ("download", bytes done, bytes in all).

    Raises
    ------
    AcquireError
        If the server refuses, no attempt gets further (the part is kept), or size or checksum
        differ (the part is removed).
    """
    import requests

    part = target.with_name(target.name + ".part")
    if target.is_file():
        os.replace(
            target, part
        )  # complete, if the server still says so: then nothing is sent again
    furthest, futile = _length(part), 0
    while True:
        try:
            _attempt(url, part, progress)
            break
        except (_Broken, requests.RequestException) as error:
            futile = 0 if _length(part) > furthest else futile + 1
            furthest = max(furthest, _length(part))
            if futile >= MAX_FUTILE_ATTEMPTS:
                raise AcquireError(
                    f"{url}: broke off {futile} times without getting further ({error}); "
                    f"{_length(part)} bytes are kept, the same command goes on from there"
                ) from error
            time.sleep(RETRY_WAIT_S * futile)
    found = _length(part)
    if size_bytes is not None and found != size_bytes:
        _discard(part)
        raise AcquireError(
            f"{url}: {found} bytes, need {size_bytes}; it was removed, try again or give another "
            "--url"
        )
    if sha256 is not None and (digest := _sha256(part)) != sha256:
        _discard(part)
        raise AcquireError(
            f"{url}: SHA-256 {digest}, need {sha256}; it was removed, try again or give another "
            "--url"
        )
    os.replace(part, target)


def _attempt(url: str, part: Path, progress: Progress) -> None:
    """One request that appends to `part`. Raises _Broken when it ends early."""
    import requests

    headers = {"Accept-Encoding": "identity"}
    start, validator = _length(part), _validator_of(part, url)
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416 and _total(answer.headers.get("Content-Range")) == start:
            return
        if answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        ):
            total, mode = _total(answer.headers.get("Content-Range")), "ab"
        elif answer.status_code == 200:
            length = answer.headers.get("Content-Length", "")
            start, total, mode = 0, int(length) if length.isdigit() else None, "wb"
        elif answer.status_code in (206, 416, 429) or answer.status_code >= 500:
            if answer.status_code in (206, 416):
                _discard(part)
            raise _Broken(f"the server answers {answer.status_code}")
        else:
            raise _refused(url, answer.status_code)
        etag = answer.headers.get("ETag", "")
        new_validator = (
            etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        )
        write_json(_notes(part), {"url": url, "validator": new_validator})
        done = start
        with part.open(mode) as stream:
            for block in answer.iter_content(CHUNK_BYTES):
                stream.write(block)
                done += len(block)
                progress("download", done, total)
    if total is not None and done != total:
        raise _Broken(f"{done} of {total} bytes")


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _validator_of(part: Path, url: str) -> str | None:
    """ETag or date under which `part` was begun; None if it cannot be resumed safely."""
    notes = _notes(part)
    if not notes.is_file():
        return None
    values = read_json(notes)
    return values.get("validator") if values.get("url") == url else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _forget(archive: Path) -> None:
    archive.unlink()
    _discard(archive.with_name(archive.name + ".part"))


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _total(content_range: str | None) -> int | None:
    text = (content_range or "").rpartition("/")[2]
    return int(text) if text.isdigit() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _archive_type(url: str, published: str | None) -> str:
    name = urlsplit(url).path.lower()
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        return "tar"
    return "zip" if name.endswith(".zip") or published is None else published


def unpack(archive: Path, folder: Path, progress: Progress = silent) -> list[str]:
    """Unpack a zip or tar file that nobody has checked; hidden files stay behind.

    Parameters
    ----------
    archive
        A file whose name ends in .zip or .tar (compressed or not).
    folder
        An existing folder.
    progress
        Called with ("unpack", bytes done, bytes in all or None).

    Returns
    -------
    list of str
        Hidden members, which were left out.

    Raises
    ------
    AcquireError
        If a member is absolute, leads out of the folder, is a link or device or is there twice,
        if all together swell more than a hundredfold, or the archive is damaged.
    """
    limit = max(MAX_EXPANSION * archive.stat().st_size, MIN_EXPANDED_LIMIT)
    members = _zip_members(archive) if archive.suffix == ".zip" else _tar_members(archive)
    skipped: list[str] = []
    done = claimed = n_members = 0
    try:
        for name, size, open_member in members:
            parts = _safe_parts(archive, name)
            claimed, n_members = claimed + size, n_members + 1
            if claimed > limit or n_members > MAX_MEMBERS:
                raise AcquireError(
                    f"{archive.name}: more than {limit / 1e6:.0f} MB or {MAX_MEMBERS} files from "
                    f"{archive.stat().st_size / 1e6:.1f} MB; that is no corpus, nothing was kept"
                )
            if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                skipped.append(name)
                continue
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, path.open("xb") as stream:
                shutil.copyfileobj(source, stream, COPY_BYTES)
            done += size
            progress("unpack", done, None)
    except FileExistsError as error:
        raise AcquireError(
            f"{archive.name}: {error.filename} is there twice; get another archive"
        ) from error
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        if isinstance(error, AcquireError):
            raise
        raise AcquireError(
            f"{archive.name}: damaged or not a {archive.suffix[1:]} file ({error})"
        ) from error
    if not done:
        raise AcquireError(f"{archive.name}: holds no files")
    return skipped


Members = Iterator[tuple[str, int, Callable[[], IO[bytes]]]]


def _zip_members(archive: Path) -> Members:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise AcquireError(
                    f"{archive.name}: {info.filename} is a link or device, need plain files only"
                )
            if not info.is_dir():
                yield info.filename, info.file_size, partial(file.open, info)
            else:
                _safe_parts(archive, info.filename)


def _tar_members(archive: Path) -> Members:
    with tarfile.open(archive, "r:*") as file:
        for info in file:
            if not (info.isreg() or info.isdir()):
                raise AcquireError(
                    f"{archive.name}: {info.name} is a link or device, need plain files only"
                )
            if info.isreg():
                yield info.name, info.size, partial(_extract, file, info)
            else:
                _safe_parts(archive, info.name)


def _extract(file: tarfile.TarFile, info: tarfile.TarInfo) -> Any:
    stream = file.extractfile(info)
    assert stream is not None
    return stream


def _safe_parts(archive: Path, name: str) -> tuple[str, ...]:
    plain = name.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    if (
        plain.startswith("/")
        or ".." in parts
        or "\0" in plain
        or any(":" in part for part in parts[:1])
    ):
        raise AcquireError(
            f"{archive.name}: {name!r} leads out of the archive; nothing of it was kept"
        )
    return parts


def _strip_single_folder(staging: Path) -> None:
    """Lift the content of the one folder that archives of repositories wrap around everything."""
    entries = list(staging.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        wrapper = staging.parent / "wrapper"
        os.replace(entries[0], wrapper)
        staging.rmdir()
        os.replace(wrapper, staging)
