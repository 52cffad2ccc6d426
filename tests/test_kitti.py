"""KITTI, end to end: a local server with small zips in KITTI's layout."""

import http.server
import io
import re
import shutil
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from tezip_h5.cli import main
from tezip_h5.cli.kitti import main as kitti_train_data_create
from tezip_h5.errors import InputError
from tezip_h5.model import downloads, hickle, kitti, traindata

VALIDATION = "city/2011_09_26_drive_0005_sync"
TRAINING = ["city/2011_09_26_drive_0001_sync", "road/2011_10_03_drive_0047_sync"]
TESTING = "residential/2011_09_26_drive_0079_sync"
FOUR = [*TRAINING, VALIDATION, TESTING]


def frame_of(name, index):
    """A picture as the camera's, 37x124: bands of its number."""
    shade = (37 * FOUR.index(name) + 9 * index) % 256
    picture = np.full((37, 124, 3), shade, np.uint8)
    picture[:, ::2, 1] = 255 - shade
    return Image.fromarray(picture)


def zipped(name, count=3):
    recording = name.partition("/")[2]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        inner = f"{recording[:10]}/{recording}"
        archive.writestr(f"{inner}/image_03/data/", "")
        for camera in ("image_02", "image_03"):
            archive.writestr(f"{inner}/{camera}/timestamps.txt", "now")
            for i in reversed(range(count)):
                png = io.BytesIO()
                frame_of(name, i + (camera == "image_02")).save(png, "PNG")
                archive.writestr(f"{inner}/{camera}/data/{i:010}.png", png.getvalue())
        archive.writestr(f"{inner}/velodyne_points/data/0.bin", bytes(5000))
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, with ranges, as badly as `server` says."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, data = self.server, self.server.files.get(self.path)
        asked = self.headers.get("Range")
        server.asked.append((self.command, self.path, asked))
        if data is None:
            self.send_error(404)
            return
        start = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if server.lengths:
            extra = server.extra if self.command == "GET" else 0
            self.send_header("Content-Length", str(len(data) - start + extra))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command == "GET":
            stop = len(data) if server.stop_after is None else start + server.stop_after
            self.wfile.write(data[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of the recordings FOUR; the environment points to it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {}
    for name in FOUR:
        recording = name.partition("/")[2]
        server.files[f"/raw/{recording[:-5]}/{recording}.zip"] = zipped(name)
    server.asked, server.stop_after, server.ranges = [], None, True
    server.lengths, server.extra = True, 0
    server.url = f"http://127.0.0.1:{server.server_port}/raw"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TEZIP_KITTI_URL", server.url)
    yield server
    server.shutdown()
    server.server_close()


def path_of(out, name):
    return out / "raw" / f"{name}.zip"


def bytes_of(server, name):
    recording = name.partition("/")[2]
    return server.files[f"/raw/{recording[:-5]}/{recording}.zip"]


def x_of(out, part):
    with hickle.opened(out / f"X_{part}.hkl") as file:
        return hickle.open_array(file)[...]


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_from_the_server_to_training_data(server, tmp_path, capsys):
    args = ["kitti", str(tmp_path), "-d", "-p", "--only", *FOUR, "--size", "32", "40"]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert re.search(r"4 recordings of \d+\.\d GB from .*: 0 are there, .* are missing", printed)
    assert "X_train.hkl: 6 frames of 32x40, RGB" in printed
    names = [name for t in TRAINING for name in [t.replace("/", "-")] * 3]
    assert hickle.read_names(tmp_path / "sources_train.hkl") == names
    assert hickle.read_names(tmp_path / "sources_val.hkl") == [VALIDATION.replace("/", "-")] * 3
    # 37x124 -> 32 high, 107 wide, the middle 40 of it
    found = x_of(tmp_path, "train")
    for k, name in enumerate(TRAINING):
        for i in range(3):
            scaled = np.asarray(frame_of(name, i).resize((107, 32), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(found[3 * k + i], scaled[:, 33:73])
    assert listing(tmp_path) == sorted(
        ["X_train.hkl", "X_val.hkl", "sources_train.hkl", "sources_val.hkl"]
        + [f"raw/{name}.zip" for name in FOUR]
    )


def test_the_manuals_program_in_two_steps(server, tmp_path):
    args = [str(tmp_path), "-d", "--only", *FOUR, "--base-url", server.url + "/"]
    assert kitti_train_data_create(args) == 0
    assert not (tmp_path / "X_train.hkl").exists()
    asked = len(server.asked)
    assert kitti_train_data_create([str(tmp_path), "-p", "--size", "37", "124"]) == 0
    assert len(server.asked) == asked
    np.testing.assert_array_equal(x_of(tmp_path, "val")[1], frame_of(VALIDATION, 1))


def test_what_is_there_is_not_downloaded_again(server, tmp_path):
    kitti.download(tmp_path, recordings=FOUR[:2])
    server.asked.clear()
    said = []
    kitti.download(tmp_path, recordings=FOUR[:2], say=said.append)
    assert {command for command, _, _ in server.asked} == {"HEAD"}
    assert "2 are there, 0.0 GB are missing" in said[0]


def test_an_unfinished_download_goes_on(server, tmp_path):
    name = FOUR[0]
    data, path = bytes_of(server, name), path_of(tmp_path, FOUR[0])
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(data[:1000])
    kitti.download(tmp_path, recordings=[name])
    assert path.read_bytes() == data
    assert server.asked[-1][2] == "bytes=1000-"
    assert listing(tmp_path) == [f"raw/{name}.zip"]


def test_a_server_that_stops_now_and_then(server, tmp_path):
    server.stop_after = 1500
    kitti.download(tmp_path, recordings=FOUR[:1])
    assert path_of(tmp_path, FOUR[0]).read_bytes() == bytes_of(server, FOUR[0])
    assert len(server.asked) > 3


def test_a_server_that_stops_half_way_for_good(server, tmp_path):
    name = FOUR[0]
    path = path_of(tmp_path, name)
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(bytes_of(server, name)[:700])
    server.stop_after = 0
    with pytest.raises(InputError, match=r"stopped after 700 of .* call again"):
        kitti.download(tmp_path, recordings=[name])
    assert listing(tmp_path) == [f"raw/{name}.zip.part"]
    server.stop_after = None
    kitti.download(tmp_path, recordings=[name])
    assert path.read_bytes() == bytes_of(server, name)


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    path = path_of(tmp_path, FOUR[0])
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(b"x" * 700)
    kitti.download(tmp_path, recordings=FOUR[:1])
    assert path.read_bytes() == bytes_of(server, FOUR[0])


def test_a_part_of_something_larger_is_dropped(server, tmp_path):
    path = path_of(tmp_path, FOUR[0])
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".part").write_bytes(b"x" * 100_000)
    kitti.download(tmp_path, recordings=FOUR[:1])
    assert path.read_bytes() == bytes_of(server, FOUR[0])


def test_another_size_than_announced(server, tmp_path):
    server.extra = 5
    with pytest.raises(InputError, match="were announced before"):
        kitti.download(tmp_path, recordings=FOUR[:1])
    assert listing(tmp_path) == []


def test_a_recording_of_another_size_is_not_taken_for_whole(server, tmp_path):
    path = path_of(tmp_path, FOUR[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"short")
    with pytest.raises(InputError, match=r"has 5 bytes, the server's has .* remove it"):
        kitti.download(tmp_path, recordings=FOUR[:1])
    assert path.read_bytes() == b"short"


def test_no_space(server, tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    monkeypatch.setattr(traindata.shutil, "disk_usage", lambda path: usage)
    assert main(["kitti", str(tmp_path), "-d", "--only", FOUR[0]]) == 1
    printed = capsys.readouterr()
    assert "are missing" in printed.out  # stated before it is found wanting
    assert "1.1 GB are free; make room" in printed.err
    assert {command for command, _, _ in server.asked} == {"HEAD"}
    assert listing(tmp_path) == []


def test_a_disk_that_fills_up_is_one_line(server, tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads, "_continue", full)
    assert main(["kitti", str(tmp_path), "-d", "--only", FOUR[0]]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_servers_of_no_use(server, tmp_path):
    del server.files["/raw/2011_09_26_drive_0001/2011_09_26_drive_0001_sync.zip"]
    with pytest.raises(InputError, match=r"404 .*base address"):
        kitti.download(tmp_path, recordings=FOUR[:1])
    with pytest.raises(InputError, match="no address of a web server"):
        kitti.download(tmp_path, recordings=FOUR[:1], base_url=f"file://{tmp_path}")
    with pytest.raises(InputError, match="cannot be reached"):
        kitti.download(tmp_path, recordings=FOUR[:1], base_url="http://127.0.0.1:1/raw")
    server.lengths = False
    with pytest.raises(InputError, match="how large"):
        kitti.download(tmp_path, recordings=[VALIDATION])
    assert listing(tmp_path) == []


def test_unknown_recordings(tmp_path):
    with pytest.raises(InputError, match="no recording of city, residential, road"):
        kitti.download(tmp_path, recordings=["campus/2011_09_28_drive_0016_sync"])


def test_the_recordings():
    assert len(kitti.RECORDINGS) == len(set(kitti.RECORDINGS)) == 61
    assert {*kitti.VALIDATION, *kitti.TEST} < set(kitti.RECORDINGS)


@pytest.fixture
def raw(tmp_path):
    """Two recordings as downloaded, one to train on and the one for validation."""
    for name in (TRAINING[0], VALIDATION):
        path_of(tmp_path, name).parent.mkdir(parents=True, exist_ok=True)
        path_of(tmp_path, name).write_bytes(zipped(name))
    return tmp_path


def four_files(folder):
    return [name for name in listing(folder) if not name.startswith("raw")]


def test_the_users_own_images_in_the_manuals_layout(raw):
    folder = raw / "raw/road/2011_10_03_drive_0047_sync"
    data = folder / "2011_10_03/2011_10_03_drive_0047_sync/image_03/data"
    data.mkdir(parents=True)
    for i in range(4):
        frame_of(TRAINING[1], i).save(data / f"{i:010}.png")
    assert kitti.convert(raw)["train"] == (7, 128, 160, 3)
    assert hickle.read_names(raw / "sources_train.hkl")[-1] == TRAINING[1].replace("/", "-")


def test_tests_recordings_are_left_out(raw):
    path_of(raw, TESTING).parent.mkdir()
    path_of(raw, TESTING).write_bytes(zipped(TESTING))
    assert kitti.convert(raw)["train"][0] == 3


def no_validation(raw):
    path_of(raw, VALIDATION).unlink()


def nothing_to_train_on(raw):
    path_of(raw, TRAINING[0]).unlink()


def nothing_at_all(raw):
    shutil.rmtree(raw / "raw")


def one_frame(raw):
    path_of(raw, TRAINING[0]).write_bytes(zipped(TRAINING[0], 1))


def truncated(raw):
    path = path_of(raw, TRAINING[0])
    path.write_bytes(path.read_bytes()[:-50])


def a_changed_byte(raw):
    path = path_of(raw, TRAINING[0])
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("2011_09_26/2011_09_26_drive_0001_sync/image_03/data/0000000001.png")
    data[info.header_offset + 30 + len(info.filename) + 60] ^= 255
    path.write_bytes(data)


def no_picture(raw):
    inner = "2011_09_26/2011_09_26_drive_0001_sync/image_03/data/0000000007.png"
    with zipfile.ZipFile(path_of(raw, TRAINING[0]), "a") as archive:
        archive.writestr(inner, "text")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_validation, "0005_sync, which is for validation"),
        (nothing_to_train_on, "no recording to train on"),
        (nothing_at_all, "which is for validation"),
        (one_frame, "holds 1 image"),
        (truncated, "no zip file, or is damaged"),
        (a_changed_byte, "0001_sync.zip"),
        (no_picture, "0000000007.png is no image"),
    ],
)
def test_errors_leave_nothing_half_written(raw, spoil, message, capsys):
    spoil(raw)
    assert main(["kitti", str(raw), "-p"]) == 1
    assert message in capsys.readouterr().err
    assert four_files(raw) == []


def test_frames_too_wide(raw):
    with pytest.raises(InputError, match="107 pixels wide, but 200 are wanted"):
        kitti.convert(raw, size=(32, 200))
    with pytest.raises(InputError, match="at least 1x1"):
        kitti.convert(raw, size=(0, 200))
    assert four_files(raw) == []


def test_nothing_to_do(tmp_path, capsys):
    assert main(["kitti", str(tmp_path)]) == 1
    assert "give -d to download" in capsys.readouterr().err
