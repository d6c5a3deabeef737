"""Downloads that give up early, resume where they stopped, and are verified before they count."""

import http.client
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tl_jax import files

Progress = Callable[[int, int], None]

_BLOCK = 1 << 20


class DownloadError(OSError):
    """The file could not be fetched; the message says why."""


def download(
    url: str,
    path: Path,
    verify: Callable[[Path], None],
    *,
    timeout: float = 10.0,
    progress: Progress | None = None,
) -> Path:
    """Fetches `url` into `path` and returns `path`.

    Bytes go to `path` + `.part`, which a later call continues; the file gets its name once `verify`
    has passed.

    Args:
        url: where from.
        path: where to; its folder exists.
        verify: raises if the file it is given is not the right one; that file is then deleted.
        timeout: seconds for the connection, name lookup included, and for each wait for data.
        progress: called with bytes done and bytes in all (0: unknown).

    Raises:
        DownloadError: if the server cannot be reached in time or the transfer stops.
        OSError: if the disk is full, as `files.explain_full_disk`; what has come is kept.
    """
    part = path.with_name(path.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    try:
        response = _connect(url, done, timeout)
        if response is not None:
            _receive(response, part, done, progress)
    except (OSError, http.client.HTTPException) as error:
        if files.is_disk_full(error):
            raise
        kept = f"; {part} keeps what has come, run again to go on" if part.exists() else ""
        raise DownloadError(f"{url}: {error}{kept}") from error
    try:
        verify(part)
    except BaseException:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def print_progress(what: str) -> Progress:
    """Returns a progress function that prints to stderr: one line rewritten, or one per tenth."""
    shown = -1
    terminal = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total if total else 0
        step = percent if terminal else percent // 10 * 10
        if step != shown:
            shown = step
            end = "\n" if not terminal or done == total else ""
            print(
                f"{chr(13) if terminal else ''}{what}: {step}%",
                end=end,
                file=sys.stderr,
                flush=True,
            )

    return show


def _connect(url: str, done: int, timeout: float) -> http.client.HTTPResponse | None:
    """Returns the open response, or None where the server has no more than `done` bytes."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    outcome: list[http.client.HTTPResponse | Exception] = []
    abandoned = threading.Event()

    def work() -> None:
        try:
            response = urllib.request.urlopen(request, timeout=timeout)
        except Exception as error:
            outcome.append(error)
            return
        outcome.append(response)
        if abandoned.is_set():
            response.close()

    # A thread, as urlopen's timeout covers neither the name lookup nor a second address.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        abandoned.set()
        raise TimeoutError(f"no connection within {timeout:g} seconds")
    result = outcome[0]
    if isinstance(result, urllib.error.HTTPError):
        result.close()
        if result.code == 416 and done:
            return None
    elif isinstance(result, urllib.error.URLError):
        raise OSError(str(result.reason)) from result
    if isinstance(result, Exception):
        raise result
    return result


def _receive(
    response: http.client.HTTPResponse, part: Path, done: int, progress: Progress | None
) -> None:
    with response:
        if response.status != 206:
            done = 0
        total = done + int(response.headers.get("Content-Length", 0))
        with (
            files.explain_full_disk(part.name, part.parent, total - done or _BLOCK),
            open(part, "ab" if done else "wb") as file,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                if progress:
                    progress(done, total)
    if total > done:
        raise OSError(f"the connection closed after {done} of {total} bytes")
