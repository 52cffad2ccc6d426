"""The report page: what it says is so, it needs nothing but itself, and a browser shows it."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from conftest import require_package, require_tool
from models import random_model
from PIL import Image

import tezip_h5
from tezip_h5.cli import main
from tezip_h5.errors import InputError
from tezip_h5.model import store
from tezip_h5.page import beside, pictures
from tezip_h5.prediction.architecture import Architecture
from tezip_h5.simulate import colour_sequence, detector_sequence, float_field


@pytest.fixture(scope="module")
def stack():
    return detector_sequence(20, 96, 128)


@pytest.fixture(scope="module")
def path(tmp_path_factory, stack):
    path = tmp_path_factory.mktemp("page") / "run.h5"
    tezip_h5.write(stack, path, absolute=2, level="fast", chunk_frames=8, window=4)
    return path


@pytest.fixture(scope="module")
def page(path):
    return tezip_h5.report(path, path.with_suffix(".html"), slow=False)


class Links(HTMLParser):
    """Collect everything a page could load, the text of its cells, and what it is told."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.tags, self.cells, self.told, self._in = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        self.loaded += [attributes[k] for k in ("src", "href", "action", "data") if k in attributes]
        if tag in ("td", "dd") or (tag == "script" and attributes.get("type")):
            self._in = tag
            (self.told if tag == "script" else self.cells).append("")

    def handle_endtag(self, tag):
        self._in = None if tag == self._in else self._in

    def handle_data(self, text):
        if self._in:
            (self.told if self._in == "script" else self.cells)[-1] += text


def told(page, number=0):
    return json.loads(Links(page.read_text()).told[number])


def image(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text()
    found = Links(text)
    assert all(link.startswith("#") for link in found.loaded)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert found.tags.count("article") == 1


def test_the_numbers_are_those_of_inspect(page, path, stack):
    (report,) = tezip_h5.inspect(path, frames=True, chunks=True).stacks
    text, cells = page.read_text(), Links(page.read_text()).cells
    assert f"{report.ratio:.2f} : 1" in text
    for row in report.frame_rows:
        assert str(row["bytes"]) in cells
    for chunk in report.chunk_rows:
        assert str(chunk.nbytes) in cells
    assert sum(chunk.nbytes for chunk in report.chunk_rows) == report.payload_bytes
    for chunk in report.chunk_rows:
        assert sum(sum(names.values()) for names in chunk.parts.values()) == chunk.nbytes
    bars = re.findall(r'<rect class="(keyframe|predicted)"', text)
    assert bars.count("keyframe") == 5
    assert bars.count("predicted") == 15
    assert "bound 2" in text


def test_pictures_show_frame_prediction_and_residual(page, path):
    frames = tezip_h5.read(path).astype(float)
    found = told(page)
    assert [frame["number"] for frame in found["frames"]] == list(range(20))
    kinds = [frame["kind"] for frame in found["frames"]]
    assert kinds[:9] == ["keyframe", "predicted", "predicted", "predicted"] * 2 + ["keyframe"]
    for t, frame in enumerate(found["frames"]):
        shown = image(found["images"][frame["frame"]]).astype(float)
        assert shown.shape == (96, 128)
        clipped = np.clip(frames[t], *np.percentile(frames, (0.3, 99.7)))
        assert np.corrcoef(shown.ravel(), clipped.ravel())[0, 1] > 0.99
        assert (frame["prediction"] is None) == (frame["kind"] == "keyframe")
        if frame["prediction"] is not None:
            assert frame["prediction"] == found["frames"][t - 1]["frame"]  # the same picture
            residual = image(found["images"][frame["residual"]]).astype(float) - 128
            assert np.corrcoef(residual.ravel(), (frames[t] - frames[t - 1]).ravel())[0, 1] > 0.9


def test_a_network_shows_its_own_predictions(tmp_path, stack):
    model = store.register(random_model(Architecture(1, (4,), (3, 5))))
    path = tmp_path / "run.h5"
    tezip_h5.write(stack[:6, :32, :32], path, model=model, predictor="prednet", absolute=40)
    page = tezip_h5.report(path, tmp_path / "run.html", peers=False)
    found = told(page)
    assert "by the network" in page.read_text()
    assert found["frames"][3]["prediction"] not in (None, found["frames"][2]["frame"])


def test_hostile_names_stay_text(tmp_path):
    path = tmp_path / "<b>run.h5"
    name = "<script>alert(1)<|script>"
    with tezip_h5.Writer(path, name, (16, 16), "u1", level="fast") as writer:
        for t in range(3):
            writer.append(
                np.full((16, 16), t, "u1"), filename=f"</script><img src=x onerror=alert({t})>"
            )
        writer.append(np.zeros((16, 16), "u1"), filename="\x1b[2J\udcff.tif")
    assert "'\\x1b[2J\\udcff.tif'" in str(tezip_h5.inspect(path, frames=True))
    page = tezip_h5.report(path, tmp_path / "page.html", peers=False)
    text = page.read_text()
    found = Links(text)
    assert found.tags.count("b") == 4  # ours: the brand and three captions
    assert found.tags.count("script") == 2
    assert all(link.startswith("#") for link in found.loaded)
    assert "onerror" in json.loads(found.told[0])["frames"][1]["words"]


def test_several_stacks_and_one_of_them(tmp_path, stack):
    path = tmp_path / "run.h5"
    tezip_h5.write(colour_sequence(5, 40, 56), path, name="colours", level="fast")
    field = float_field(6, 40, 56)
    field[2, 3, 4], field[3] = np.inf, np.nan
    tezip_h5.write(field, path, name="deep/floats", level="fast", relative=1e-3)
    tezip_h5.write(stack, path, name="tiles", tile=(50, 50), level="fast", chunk_frames=8)
    with h5py.File(path, "r+") as file:  # without tables, and a chunk that HDF5 stored raw
        bare = file.create_dataset("bare", data=stack, chunks=(8, 96, 128), **tezip_h5.TEZip())
        bare.id.write_direct_chunk((8, 0, 0), stack[8:16].tobytes(), 1)
        tezip_h5.write(file.create_dataset("here", data=stack[:4]), level="fast")
    page = tezip_h5.report(path, tmp_path / "run.html", peers=False)
    found = Links(page.read_text())
    assert found.tags.count("article") == 5
    names = {"colours", "deep/floats", "tiles", "bare", "here"}
    assert names == {stack.name for stack in tezip_h5.inspect(path).stacks}
    for name in names:
        assert f">{name}</a>" in page.read_text()
    shapes = [image(json.loads(text)["images"][0]).shape for text in found.told]
    assert (40, 56, 3) in shapes
    one = tezip_h5.report(path, tmp_path / "one.html", name="/deep/floats", peers=False)
    assert Links(one.read_text()).tags.count("article") == 1
    with pytest.raises(InputError, match="colours, deep/floats"):
        tezip_h5.report(path, tmp_path / "none.html", name="nowhere")


def test_a_stack_without_frames_or_a_living_writer(tmp_path, stack):
    path, page = tmp_path / "run.h5", tmp_path / "run.html"
    with tezip_h5.Writer(path, "scan", stack.shape[1:], stack.dtype, level="fast"):
        pass
    assert "Where the bytes went" not in tezip_h5.report(path, page).read_text()
    writer = tezip_h5.Writer(path, "more", stack.shape[1:], stack.dtype, level="fast")
    writer.append(stack[:3])
    writer.flush()
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    writer.close()
    assert "its writer is still running" in tezip_h5.report(copy, page, peers=False).read_text()


def test_peers_are_measured_on_the_same_samples(path):
    with h5py.File(path) as file:
        found = beside.compare(file["scan/data"], threads=1)
        size = file["scan/data"].id.get_storage_size()
    assert (found.first, found.stop, found.nbytes) == (0, 20, size)
    assert found.raw_bytes == 20 * 96 * 128 * 2
    names = [rival.name for rival in found.rivals]
    assert {"hdf5 shuffle+gzip-9", "hdf5 shuffle+zstd-9", "blosc bitshuffle+zstd-5"} <= set(names)
    assert any("blosc2" in name for name in names)
    sizes = [rival.nbytes for rival in found.rivals]
    assert sizes == sorted(sizes)
    assert all(size > 0 for size in sizes)
    assert not set(names) & set(found.left_out)


def test_a_peer_that_fails_is_left_out(path, monkeypatch):
    class Broken:
        name, slow = "broken", False
        supports = staticmethod(lambda *_: True)
        available = staticmethod(lambda: None)

        @staticmethod
        def encode(*_):
            raise RuntimeError("no luck")

    monkeypatch.setattr(beside, "peers", lambda: [Broken()])
    with h5py.File(path) as file:
        found = beside.compare(file["scan/data"])
    assert found.rivals == []
    assert found.left_out == {"broken": "it failed: no luck"}


def test_which_frames_are_shown():
    runs = pictures.chosen_frames(1000, 16, 48)
    assert sum(map(len, runs)) >= 48
    assert {run.start // 16 for run in runs} >= {0, 62}
    assert all(run.start % 16 == 0 for run in runs)
    assert pictures.chosen_frames(20, 8, None) == [range(8), range(8, 16), range(16, 20)]
    assert pictures.chosen_frames(20, 8, slice(6, 9)) == [range(6, 8), range(8, 9)]


def test_reduced_pictures_are_means():
    frame = np.arange(35, dtype="f4").reshape(5, 7)
    frame[0, 0] = np.nan
    small = pictures.reduced(frame, 3)
    assert small.shape == (2, 3)
    assert small[0, 0] == np.nanmean(frame[:3, :3])
    assert small[1, 2] == frame[3:, 6:].mean()
    assert np.isnan(pictures.reduced(np.full((4, 4), np.nan), 2)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pictures": -1}, "no number of frames"),
        ({"pictures": "many"}, "no number of frames"),
        ({"pictures": slice(0, 9, 2)}, "without a step"),
        ({"pictures": slice(50, 60)}, "none of 20 frames"),
        ({"name": "nowhere"}, "its stacks are: scan"),
    ],
)
def test_wrong_options(path, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        tezip_h5.report(path, tmp_path / "page.html", **options)
    assert not list(tmp_path.iterdir())


def test_wrong_files(path, tmp_path, capsys):
    before = path.read_bytes()
    assert main(["inspect", str(path), "--html", str(path)]) == 1
    assert main(["inspect", str(path), "--html", str(tmp_path)]) == 1
    assert main(["inspect", str(path), "--html", str(tmp_path / "no" / "page.html")]) == 1
    assert main(["inspect", str(path), "--html", "x.html", "--pictures", "a:b"]) == 1
    assert main(["inspect", str(path), "--html", "x.html", "--json"]) == 1
    assert main(["inspect", str(path), "--no-peers"]) == 1
    assert main(["inspect", str(tmp_path / "no.h5"), "--html", str(tmp_path / "x.html")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 7
    damaged = bytearray(before)
    with h5py.File(path) as file:
        info = file["scan/data"].id.get_chunk_info(1)
    damaged[info.byte_offset + info.size // 2] ^= 1
    (tmp_path / "damaged.h5").write_bytes(damaged)
    out = str(tmp_path / "x.html")
    assert main(["inspect", str(tmp_path / "damaged.h5"), "--html", out, "--no-peers"]) == 2
    assert "chunk at (8, 0, 0)" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "damaged.h5"), "--chunks"]) == 2
    assert "chunk at (8, 0, 0)" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.h5"]
    assert path.read_bytes() == before


def test_only_a_page_is_replaced(path, tmp_path, capsys):
    options = ["--pictures", "0", "--no-peers"]
    out = tmp_path / "page.html"
    np.save(tmp_path / "other.npy", np.arange(4))
    out.write_text("<!DOCTYPE html><title>tezip_h5 and others</title>")
    before = [file.read_bytes() for file in (tmp_path / "other.npy", out)]
    for file in (tmp_path / "other.npy", out):
        assert main(["inspect", str(path), "--html", str(file), *options]) == 1
        assert "exists, and is no page that tezip_h5 made" in capsys.readouterr().err
    assert [file.read_bytes() for file in (tmp_path / "other.npy", out)] == before
    out.unlink()
    for _ in range(2):
        assert main(["inspect", str(path), "--html", str(out), *options]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.npy", "page.html"]


def test_a_page_is_known_by_whatever_name(tmp_path, stack):
    path = tmp_path / f"{'<&>' * 80}.h5"
    tezip_h5.write(stack[:2], tmp_path / "run.h5", level="fast")
    (tmp_path / "run.h5").rename(path)
    out = tmp_path / "page.html"
    for _ in range(2):  # the second time it is there
        tezip_h5.report(path, out, pictures=0, peers=False)


def test_messages_of_the_command_name_its_options(path, tmp_path, capsys):
    for given, words in [
        ("-3", "--pictures -3: give a number"),
        ("50:60", "pictures of 50:60 are none of 20 frames"),
    ]:
        out = str(tmp_path / "x.html")
        assert main(["inspect", str(path), "--html", out, f"--pictures={given}"]) == 1
        assert words in capsys.readouterr().err


def test_the_command(path, tmp_path, capsys):
    out = tmp_path / "page.html"
    options = ["--pictures", "9:11", "--no-peers"]
    assert main(["inspect", str(path), "--html", str(out), *options]) == 0
    assert str(out) in capsys.readouterr().out
    assert [frame["number"] for frame in told(out)["frames"]] == [9, 10]
    assert main(["inspect", str(path), "--frames", "--chunks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"stack +dtype +shape +bound +max error +level +samples +stored", lines[2])
    assert any(re.match(r" +7 +predicted +1 +\d+ ", line) for line in lines)
    assert any(re.match(r"16,0,0 +4 +linear +previous +\d+ ", line) for line in lines)
    assert main(["inspect", str(path), "--chunks", "--frames", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["stacks"]
    assert [row["kind"] for row in found["frame_rows"]].count("keyframe") == 5
    assert found["chunk_rows"][1]["offset"] == [8, 0, 0]


# --- in a browser ---


class Browser:
    """Debian's Chromium, without a window."""

    def __init__(self, service):
        webdriver = require_package("selenium.webdriver")
        options = webdriver.ChromeOptions()
        options.binary_location = require_tool("chromium")
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--disable-gpu",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page, theme="light", width=1280, place=""):
        command = self.driver.execute_cdp_cmd
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        command("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.get(page.as_uri() + place)

    def run(self, script):
        return self.driver.execute_script(script)

    def screenshot(self, file):
        width, height = self.run("const e = document.documentElement;"
                                 "return [e.clientWidth, e.scrollHeight]")  # fmt: skip
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        file.write_bytes(base64.b64decode(taken["data"]))
        return np.asarray(Image.open(file).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def browser():
    require_package("selenium")
    service = require_package("selenium.webdriver.chrome.service").Service(
        require_tool("chromedriver")
    )
    made = Browser(service)
    yield made
    made.driver.quit()


WORDS = "return document.querySelector('.words').textContent"
SHOWN = """return ['frame', 'prediction', 'residual'].map((part) => {
  const img = document.querySelector('.' + part + ' .plate img');
  return !img.hidden && img.complete && img.naturalWidth > 0 ? img.src : null; })"""


def test_a_browser_shows_the_page(browser, page, tmp_path):
    taken = {}
    for theme in ("light", "dark"):
        browser.open(page, theme, place="#stack-1-frame-7")
        taken[theme] = browser.screenshot(tmp_path / f"{theme}.png")
        assert "Frame 7" in browser.run(WORDS)
        assert all(browser.run(SHOWN))
    light, dark = taken["light"], taken["dark"]
    assert light.shape == dark.shape
    assert light.shape[1] == 1280
    assert light[5, 5].min() > 240
    assert dark[5, 5].max() < 40
    assert np.median(light) > 200 > 60 > np.median(dark)
    # There is something on every screenful, and the three pictures are no flat areas.
    for top in range(0, light.shape[0] - 300, 300):
        assert light[top : top + 300].std() > 4, top
    for part in ("frame", "prediction", "residual"):
        box = browser.run(
            f"const r = document.querySelector('.{part} .plate').getBoundingClientRect();"
            "return [r.left, r.top + scrollY, r.right, r.bottom + scrollY]"
        )
        left, top, right, bottom = map(round, box)
        assert right - left > 250
        assert dark[top:bottom, left:right].std() > 10
    # Residuals are coloured; nothing is light where the page is dark.
    residual = dark[top:bottom, left:right]
    assert np.abs(residual[..., 0] - residual[..., 2]).max() > 60
    assert not [entry for entry in browser.driver.get_log("browser") if entry["level"] == "SEVERE"]
    asked = [
        json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")
    ]
    urls = [
        m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in [url.partition("#")[0] for url in urls]
    assert all(url.startswith(("data:", "about:", page.as_uri())) for url in urls)


def test_a_browser_steers_through_the_frames(browser, page):
    browser.open(page)
    assert "Frame 1" in browser.run(WORDS)
    before = browser.run(SHOWN)
    browser.run("document.querySelector('.on').click()")
    assert "Frame 2" in browser.run(WORDS)
    after = browser.run(SHOWN)
    assert after[1] == before[0]  # the frame before is the prediction
    assert after[0] != before[0]
    browser.run("document.querySelector('.strip button:nth-child(2)').click()")
    assert "Frame 4keyframe" in browser.run(WORDS)
    assert browser.run(SHOWN)[1:] == [None, None]
    assert browser.run("return !document.querySelector('.prediction .none').hidden")
    browser.run(
        "const s = document.querySelector('.steer input'); s.value = 19;"
        "s.dispatchEvent(new Event('input'))"
    )
    assert "Frame 19" in browser.run(WORDS)
    browser.run(
        "const c = document.querySelector('svg[data-frames]'), r = c.getBoundingClientRect();"
        "const x = (+c.dataset.left + 10.5 * c.dataset.step) / c.viewBox.baseVal.width * r.width;"
        "c.dispatchEvent(new MouseEvent('click', {clientX: r.left + x, bubbles: true}))"
    )
    assert "Frame 10" in browser.run(WORDS)
    cursor = float(browser.run("return document.querySelector('.cursor').getAttribute('x1')"))
    assert 400 < cursor < 600
    browser.run("document.getElementById('theme').click()")
    assert (
        browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 24)"
    )


@pytest.mark.parametrize("width", [390, 768])
def test_a_narrow_page_does_not_overflow(browser, page, width, tmp_path):
    browser.open(page, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.screenshot(tmp_path / "narrow.png")
