import errno
import hashlib
import http.server
import socket
import threading
import time

import pytest

from tl_jax.data import download
from tl_jax.errors import InputError

CONTENT = bytes(range(256)) * 20000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; `mode` of the server says how well."""

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        start = 0
        if self.headers.get("Range") and self.server.mode != "no ranges":
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if self.server.mode == "absent":
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) // 2 if self.server.mode == "breaks" else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.mode, found.ranges = "good", []
        found.url = f"http://127.0.0.1:{found.server_address[1]}/file"
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def verify(path):
    found = hashlib.md5(path.read_bytes()).hexdigest()
    if found != hashlib.md5(CONTENT).hexdigest():
        raise InputError(f"md5 {found}")


def test_a_file_arrives_whole_with_progress(server, tmp_path):
    told = []
    path = download.download(
        server.url,
        tmp_path / "file",
        verify,
        progress=lambda done, total: told.append((done, total)),
    )
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", ["good", "no ranges"])
def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path, mode):
    server.mode = "breaks"
    with pytest.raises(download.DownloadError, match="run again to go on"):
        download.download(server.url, tmp_path / "file", verify)
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").stat().st_size == len(CONTENT) // 2
    server.mode = mode
    download.download(server.url, tmp_path / "file", verify)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_full_disk_is_not_told_as_a_failed_download(server, tmp_path):
    def fail(done, total):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=f"file.part .* {tmp_path}: .* 5,120,000 bytes") as raised:
        download.download(server.url, tmp_path / "file", verify, progress=fail)
    assert raised.value.errno == errno.ENOSPC
    assert 0 < (tmp_path / "file.part").stat().st_size < len(CONTENT)
    download.download(server.url, tmp_path / "file", verify)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download.download(server.url, tmp_path / "file", verify)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_name(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"other" * 100)
    with pytest.raises(InputError, match="md5"):
        download.download(server.url, tmp_path / "file", verify)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_closed_port_are_reported(server, tmp_path):
    server.mode = "absent"
    with pytest.raises(download.DownloadError, match=r"/file: HTTP Error 404"):
        download.download(server.url, tmp_path / "file", verify)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    with pytest.raises(download.DownloadError, match="refused"):
        download.download(url, tmp_path / "file", verify)


def test_a_silent_server_is_given_up_in_time(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(download.DownloadError, match=r"timed out|no connection within"):
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
            download.download(url, tmp_path / "file", verify, timeout=0.3)
        assert time.monotonic() - start < 3


def test_progress_without_a_terminal_is_a_line_per_tenth(capsys):
    show = download.print_progress("downloading x")
    for done in range(0, 1001):
        show(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["downloading x: 0%", "downloading x: 10%"]
    assert len(lines) == 11
