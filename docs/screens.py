"""Pictures of what MLflow shows of the runs: `make screens` takes them and writes docs/images.

Starts `sonolens ui`, opens its addresses in the system's Chromium with a window of fixed size and
keeps what docs/templates/figures.yaml lists under `screens`. Wanted before: `dvc repro`, so that
the workspace has a row, and `dvc exp run -S …`, so that there is something to compare it with.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, TimeoutError, sync_playwright

from sonolens.report.page_images import Picture, PictureError, checked, shrink
from sonolens.store import whole
from sonolens.track import VIEW_FOR_TRAINING, published_key

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Nothing is looked up or fetched but what the pages ask for; the sandbox is refused to root.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 60_000
# So narrow that letters can be read where a page shows the picture 830 pixels wide.
WIDTH, SCALE = 1100, 1.4
HEIGHTS = {"runs": 460, "comparison": 720}
SEEN = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
RUN_ROW = ".ag-center-cols-container .ag-row, .ag-pinned-left-cols-container .ag-row"


def chromium() -> str | None:
    """Path of the system's Chromium, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def serve(
    root: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """`sonolens ui` in `root` on a free port; its addresses by what they show."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    command = [sys.executable, "-m", "sonolens.cli", "ui", "--port", str(port), *options]
    process = subprocess.Popen(
        command,
        cwd=root,
        env=dict(environment or os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        else:
            raise PictureError(f"`sonolens ui` ended:\n{''.join(lines)}")
        yield dict(re.findall(r"^(.+?) +(http\S+)$", "".join(lines), re.M))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@contextmanager
def browse(width: int = 1300, height: int = 900, scale: float = 1) -> Iterator[Page]:
    """A page in Chromium's window of this size in pixels of CSS, `scale` pixels to each."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(SWITCHES))
        context = browser.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=scale
        )
        context.set_default_timeout(TIMEOUT_MS)
        # As in a browser that was here before: on a first visit MLflow opens a panel to chat in.
        context.add_init_script(
            f"if (location.protocol === 'http:') localStorage.setItem('{SEEN}', 'true')"
        )
        yield context.new_page()
        browser.close()


def open_runs(page: Page, link: str) -> None:
    """The table of runs, with its rows."""
    page.goto(link)
    try:
        page.locator(RUN_ROW).first.wait_for()
    except TimeoutError as error:
        raise PictureError(
            f"{link}: no rows there; run `sonolens track sync`, then again"
        ) from error


def open_comparison(page: Page, link: str) -> None:
    """Rows beside each other, only where they differ."""
    page.goto(link)
    for part in ("Parameters", "Metrics"):
        page.get_by_label(f"{part} - Show diff only").click()


def open_artifact(page: Page, run: str, path: str) -> None:
    """From the table to a run's file, as a user finds it."""
    page.get_by_role("link", name=run, exact=True).click()
    page.get_by_role("tab", name="Artifacts", exact=True).click()
    for name in path.split("/"):
        page.get_by_text(name, exact=True).first.click()


def take(page: Page, root: Path, links: Mapping[str, str], row: Picture, target: Path) -> None:
    """Write one picture as PNG."""
    table = links[row.study]
    page.set_viewport_size({"width": WIDTH, "height": HEIGHTS.get(row.page, 600)})
    if row.page == "runs":
        open_runs(page, table)
        narrow = page.get_by_label("Toggle sidebar")
        if page.get_by_text("Model registry").is_visible():
            narrow.click()
    elif row.page == "comparison":
        compared = [link for what, link in links.items() if what.endswith("compared")]
        if not compared:
            raise PictureError("one row only, need two: `dvc exp run -S …` makes another")
        open_comparison(page, compared[0])
        page.get_by_text("Run Name:").evaluate("cell => cell.scrollIntoView()")
    else:
        # The workspace's own row: what it shows is of the embedded data.
        key = published_key(root, row.study)
        query = quote(f"tags.`sonolens.key` = '{key}'")
        open_runs(page, f"{table.split('?')[0]}?{VIEW_FOR_TRAINING}&searchFilter={query}")
        open_artifact(page, page.locator(RUN_ROW).get_by_role("link").first.inner_text(), row.page)
        page.goto(f"{page.url}?{VIEW_FOR_TRAINING}")
        page.get_by_alt_text(row.page).wait_for()
        # Where the file lies on this machine is nobody's business.
        page.get_by_text("Path: ").evaluate("line => line.style.visibility = 'hidden'")
    page.mouse.move(0, 0)
    page.screenshot(path=target, animations="disabled")


def main() -> None:
    """Take all pictures of the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    root = Path.cwd()
    if chromium() is None:
        sys.exit(f"no browser, need one of {', '.join(BROWSERS)}; install Chromium")
    try:
        with (
            serve(root) as links,
            browse(WIDTH, scale=SCALE) as page,
            tempfile.TemporaryDirectory() as folder,
        ):
            for row in checked(root, "screens"):
                screen = Path(folder) / f"{row.image}.png"
                take(page, root, links, row, screen)
                content = shrink(screen, row.max_width, 1000 * row.max_kilobytes)
                with whole(root / row.target) as stream:
                    stream.write(content)
                sys.stdout.write(f"{row.target}: {len(content) / 1000:.0f} kB\n")
    except PictureError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
