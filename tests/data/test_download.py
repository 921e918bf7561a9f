"""A download is whole and the published file, or is not there; it goes on where it broke off."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lrwd_sweep.data.download import Published, download
from lrwd_sweep.errors import DataError

CONTENT = bytes(range(256)) * 20_000  # 5 MB


@dataclass
class Server:
    """A server on this machine that knows one file."""

    url: str = ""
    content: bytes = CONTENT
    breaks_after: int | None = None  # bytes of an answer
    resumes: bool = True
    asked: list[str | None] = field(default_factory=list)  # ranges

    @property
    def published(self) -> Published:
        return Published("file.bin", self.url, hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and state.resumes else 0
            if self.path != "/file.bin":
                self.send_error(404)
            elif begin >= len(state.content):
                self.send_error(416)
            else:
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(state.content) - begin))
                self.end_headers()
                end = None if state.breaks_after is None else begin + state.breaks_after
                self.wfile.write(state.content[begin:end])

        def log_message(self, *_: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{http.server_port}/file.bin"
        yield state
        http.shutdown()


def test_the_whole_file_arrives_and_its_progress_is_told(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    to = tmp_path / "deep" / "file.bin"
    download(server.published, to, lambda *seen: told.append(seen))
    assert to.read_bytes() == CONTENT
    assert [path.name for path in to.parent.iterdir()] == ["file.bin"]
    assert told[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_what_broke_off_is_not_under_its_name_and_goes_on_later(server: Server, tmp_path: Path) -> None:
    to = tmp_path / "file.bin"
    server.breaks_after = 3_000_000
    with pytest.raises(DataError, match="broke off after 3,000,000 of 5,120,000 bytes; run the same command"):
        download(server.published, to)
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin.part"]
    server.breaks_after = None
    download(server.published, to)
    assert to.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000000-"]


def test_a_server_that_cannot_go_on_begins_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"something else")
    server.resumes = False
    download(server.published, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_was_whole_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(server.published, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_another_file_than_the_published_one_is_removed(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match="gave another file than the published one"):
        download(server.published, tmp_path / "file.bin")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_one_line(server: Server, tmp_path: Path) -> None:
    gone = Published("file.bin", server.url.replace("file.bin", "gone"), "")
    with pytest.raises(
        DataError, match=r"gone: the server answered 404 Not Found; .* put file\.bin in"
    ) as error:
        download(gone, tmp_path / "file.bin")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_no_network_is_one_line_that_says_how_to_go_on(tmp_path: Path, server: Server) -> None:
    closed = Published("file.bin", "http://127.0.0.1:1/file.bin", "")
    with pytest.raises(DataError) as error:
        download(closed, tmp_path / "file.bin")
    assert str(error.value) == (
        "cannot download http://127.0.0.1:1/file.bin: Connection refused; run the same command again to go "
        f"on, or put file.bin in {tmp_path}"
    )
    assert server.asked == []


def test_a_folder_that_cannot_be_written_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match=r"cannot download .*File exists") as error:
        download(server.published, tmp_path / "data" / "file.bin")
    assert "\n" not in str(error.value)
