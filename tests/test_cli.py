"""The command lines, as a user types them."""

import contextlib
import json
import os
import re
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
from PIL import Image

import tezip_h5
from tezip_h5 import FormatError, ModelError, cli
from tezip_h5.cli import legacy, main
from tezip_h5.hdf5.files import opening
from tezip_h5.hdf5.pipeline import filter


@pytest.fixture
def images(tmp_path, walk):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, frame in enumerate(walk):
        Image.fromarray(frame).save(folder / f"img_{i}.png")
    return folder


def error_of(walk, frames):
    return np.abs(frames.astype(float) - walk).max()


def test_compress_decompress(images, tmp_path, walk, capsys):
    out = tmp_path / "run.h5"
    args = ["-p", "3", "-w", "5", "-m", "pwrel", "-b", "0.01", "-f", "-v"]
    assert main(["compress", "default", str(images), str(out), *args]) == 0
    printed = capsys.readouterr().out
    assert "ratio" in printed
    assert len(re.findall(r"^frame \d+: .* MSE: ", printed, re.MULTILINE)) == 20
    back = tezip_h5.read(out)
    assert (np.abs(back.astype(float) - walk) <= 0.01 * walk).all()
    assert main(["decompress", "default", str(out), str(tmp_path / "out"), "-v"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in images.iterdir()
    )
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "img_7.png")), back[7])


def test_windows_and_warm_up_mean_what_the_manual_says(images, tmp_path):
    out = tmp_path / "run.h5"
    args = ["compress", "none", str(images), str(out), "-p", "3", "-w", "5", "--chunk-frames", "20"]
    assert main(args) == 0
    kinds = h5py.File(out)["scan/frames"]["kind"]
    assert "".join(map(str, kinds)) == "11102222022220222202"


def test_an_hdf5_dataset(tmp_path, walk, capsys):
    with h5py.File(tmp_path / "in.h5", "w") as f:
        f["entry/data"] = walk
    source = f"{tmp_path}/in.h5:/entry/data"
    out = str(tmp_path / "out.h5")
    assert (
        main(["compress", "none", source, out, "-m", "absrel", "-b", "5", "0.1", "--verify"]) == 0
    )
    assert main(["verify", out, "--against", source]) == 0
    assert "within the bound" in capsys.readouterr().out
    assert main(["decompress", out, str(tmp_path / "frames")]) == 0
    assert (tmp_path / "frames" / "frame_000019.png").exists()


@pytest.mark.parametrize(
    ("words", "bound"),
    [
        (["-m", "abs", "-b", "2"], "absolute 2"),
        (["--absolute", "2"], "absolute 2"),
        (["--relative", "0.01", "--absolute", "2"], "absolute 2, relative 0.01"),
        (["--pointwise-relative", "0.01"], "pointwise relative 0.01"),
        (["--noise", "0.5"], "noise 0.5"),
        ([], "lossless"),
    ],
)
def test_the_model_may_be_left_out(tmp_path, images, words, bound, capsys):
    out = str(tmp_path / "run.h5")
    paths = ([str(images), out], ["default", str(images), out], ["none", str(images), out])
    for number, names in enumerate(paths):
        head, tail = names[:number], names[number:]  # options may stand anywhere between
        options = ["--level", "fast", "--overwrite", *words]
        end = ["--verify"] if tail else []
        assert main(["compress", *head, *options, *end, *tail]) == 0
        assert f"uint16 (20, 40, 56)  {bound}\n" in capsys.readouterr().out


def test_a_model_is_no_stack(tmp_path, capsys):
    assert main(["compress", "default", str(tmp_path / "run.h5")]) == 1
    assert "default is a model, so IMAGES or OUT.h5 is missing" in capsys.readouterr().err


def test_a_dataset_is_not_compressed_into_its_own_file(run_h5, capsys):
    before = run_h5.read_bytes()
    assert main(["compress", "none", f"{run_h5}:/scan/data", str(run_h5), "--name", "again"]) == 1
    assert "is the file that is read; give another one" in capsys.readouterr().err
    assert run_h5.read_bytes() == before


def test_inspect(run_h5, capsys):
    assert main(["inspect", str(run_h5)]) == 0
    assert "lossless" in capsys.readouterr().out
    assert main(["inspect", str(run_h5), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stacks"][0]["shape"] == [20, 40, 56]


def test_verify_exits_with_2_on_damage(run_h5, capsys):
    assert main(["verify", str(run_h5)]) == 0
    with h5py.File(run_h5) as f:
        info = f["scan/data"].id.get_chunk_info(0)
    with open(run_h5, "r+b") as file:
        file.seek(info.byte_offset + info.size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert main(["verify", str(run_h5)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("tezip-h5: chunk at (0, 0, 0)")
    assert "damaged" in message


def test_verify_exits_with_2_when_the_bound_is_broken(run_h5, tmp_path, walk, capsys):
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = walk + 1
    assert main(["verify", str(run_h5), "--against", f"{tmp_path}/other.h5:/x"]) == 2
    assert "outside the bound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-w", "5", "-t", "0.1"], "-w"),
        (["-m", "maximum", "-b", "1"], "unknown error bound mode"),
        (["-m", "abs"], "-b is missing; for example: -m abs -b 2"),
        (["-m", "absrel", "-b", "1"], "takes two bounds"),
        (["-b", "1"], "without a mode"),
        (
            ["-m", "abs", "-b", "1", "--absolute", "1"],
            "--absolute and -m or -b say the bound twice",
        ),
        (["--relative", "1", "--noise", "1"], "noise was given together with relative"),
        (["-m", "abs", "-b", "-1"], ">= 0"),
        (["-m", "abs", "-b", "nan"], "finite"),
        (["-m", "abs", "-b", "inf"], "finite"),
        (["-p", "50"], "only 20"),
        (["-w", "0"], "window"),
    ],
)
def test_wrong_options_exit_with_1(images, tmp_path, args, words, capsys):
    assert main(["compress", "default", str(images), str(tmp_path / "run.h5"), *args]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["compress"],
        ["compress", "x"],
        ["compress", "default", "a", "b", "c"],
        ["frobnicate"],
        ["compress", "default", "a", "b", "-m", "abs", "-b", "two"],
    ],
)
def test_wrong_command_lines_exit_with_1(args, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 1
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["verify", "run.h5", "--against", ""], "the argument after --against"),
        (["verify", "run.h5", "--against="], "--against="),
        (["decompress", "run.h5", ""], "the argument after run.h5"),
        (["inspect", "run.h5", "--html", "x.html", "--pictures", ""], "after --pictures"),
        (["compress", "", "images", "x.h5"], "the argument after compress"),
        (["model", "show", ""], "the argument after show"),
        ([""], "the argument after tezip-h5"),
    ],
)
def test_an_empty_argument_is_no_name(images, run_h5, tmp_path, args, named, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 1
    error = capsys.readouterr().err
    assert named in error
    assert "is empty; give a name" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_the_manuals_programs_take_no_empty_argument(capsys):
    with pytest.raises(SystemExit) as exit:
        legacy.main(["-u", "default", "packed", ""])
    assert exit.value.code == 1
    assert "the argument after packed is empty" in capsys.readouterr().err


@pytest.mark.parametrize("program", [cli, legacy])
def test_interrupted_while_it_is_imported(program, monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_parser", interrupted)
    assert program.main(["inspect", "run.h5"]) == 130
    assert capsys.readouterr().err.endswith(": interrupted\n")


def test_a_warning_is_one_line(capsys):
    def run():
        warnings.warn("something is odd\nbut goes on", stacklevel=1)

    usual = warnings.formatwarning
    with warnings.catch_warnings():  # pytest records them otherwise
        warnings.simplefilter("always")
        warnings.showwarning = lambda *found: sys.stderr.write(warnings.formatwarning(*found[:4]))
        assert cli.guarded("tezip-h5", run) == 0
    assert capsys.readouterr().err == "tezip-h5: warning: something is odd but goes on\n"
    assert warnings.formatwarning is usual


@pytest.mark.parametrize(
    ("model", "words"), [("nowhere", "'nowhere' does not exist"), (".", "holds no integer model")]
)
def test_models_that_are_none(images, tmp_path, model, words, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compress", model, str(images), "run.h5"]) == 1
    assert words in capsys.readouterr().err


def test_a_damaged_model_of_the_original_is_refused(images, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("prednet_model.json", "prednet_weights.hdf5"):
        (model / name).write_bytes(b"")
    assert main(["compress", str(model), str(images), str(tmp_path / "run.h5")]) == 1
    assert "no PredNet of the original" in capsys.readouterr().err
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize(
    "args",
    [
        ["compress", "none", "nowhere", "out.h5"],
        ["compress", "none", "in.h5:/missing", "out.h5"],
        ["compress", "none", "nowhere.h5:/x", "out.h5"],
        ["compress", "none", "in.h5", "in.h5"],
        ["decompress", "nowhere.h5", "out"],
        ["decompress", "a", "b", "c", "d"],
        ["inspect", "nowhere.h5"],
        ["inspect", "in.h5"],
        ["verify", "in.h5"],
    ],
)
def test_wrong_paths_exit_with_1(tmp_path, walk, args, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("in.h5", "w") as f:
        f["x"] = walk
    assert main(args) == 1
    assert capsys.readouterr().err.startswith("tezip-h5: ")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5"]


def test_the_manuals_own_form(images, tmp_path, walk, capsys):
    packed, out = tmp_path / "comp_data", tmp_path / "uncomp_data"
    args = ["-p", "3", "-w", "5", "-m", "abs", "-b", "2", "-n", "-v"]
    assert legacy.main(["-c", "default", str(images), str(packed), *args]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("CPU MODE\ncompress mode\n")
    assert str(packed / "tezip.h5") in printed
    assert [p.name for p in packed.iterdir()] == ["tezip.h5"]
    assert legacy.main(["-c", "default", str(images), str(packed), *args]) == 0  # a second run
    assert legacy.main(["-u", "default", str(packed), str(out)]) == 0
    assert legacy.main(["-u", "default", str(packed), str(out)]) == 0  # a second run
    assert "uncompress mode" in capsys.readouterr().out
    frames = np.stack([np.asarray(Image.open(out / f"img_{i}.png")) for i in range(20)])
    assert error_of(walk, frames) <= 2


def test_originals_are_not_replaced_by_what_is_left_of_them(images, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in images.iterdir()}
    packed = tmp_path / "packed"
    args = ["-c", "none", str(images), str(packed), "-m", "abs", "-b", "2"]
    assert legacy.main(args) == 0
    assert legacy.main(["-u", "none", str(packed), str(images)]) == 1
    assert "is there already, and differs; give an empty folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in images.iterdir()} == before


def test_nothing_is_put_among_images(images, capsys):
    before = sorted(images.iterdir())
    for program, args in [
        (main, ["compress", "none", str(images), str(images / "out.h5")]),
        (legacy.main, ["-c", "none", str(images), str(images)]),
    ]:
        assert program(args) == 1
        assert "would lie among the images" in capsys.readouterr().err
    assert sorted(images.iterdir()) == before


def test_the_manuals_mistakes(images, tmp_path, capsys):
    old = tmp_path / "old"
    old.mkdir()
    (old / "key_frame.dat").write_bytes(b"x")
    for args, words in [
        (["-u", "default", str(old), "out"], "only the machine that made it"),
        (["-u", "default", str(images), "out"], "holds no tezip.h5"),
        (["-c", "default", str(images), str(tmp_path / "x"), "-w", "5", "-t", "1"], "-w"),
    ]:
        assert legacy.main(args) == 1
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit:
        legacy.main(["-c", "a", "b", "c", "-u", "a", "b", "c"])
    assert exit.value.code == 1


def test_the_manuals_out_folder(images, tmp_path, capsys):
    there = sorted(tmp_path.rglob("*"))
    out = tmp_path / "a" / "b"
    for source, options in [(tmp_path / "gone", []), (images, ["-w", "99999999999999999999"])]:
        assert legacy.main(["-c", "none", str(source), str(out), *options]) == 1
        assert sorted(tmp_path.rglob("*")) == there
    (tmp_path / "file").touch()
    for no_folder in ("file", "file/a"):
        assert legacy.main(["-c", "none", str(images), str(tmp_path / no_folder)]) == 1
        assert "is no folder, nor can it be one" in capsys.readouterr().err
    assert legacy.main(["-c", "none", str(images), str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["tezip.h5"]


def test_learning_by_the_manual(tmp_path, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(legacy, "learn", lambda *args, **options: called.append((args, options)))
    monkeypatch.setattr(legacy, "require", lambda out, data: None)
    monkeypatch.setattr(legacy, "mode", lambda force: "CPU MODE" if force else "GPU MODE")
    for options, first in ([], "GPU MODE"), (["-f", "-v"], "CPU MODE"):
        assert legacy.main(["-l", "model", "train_data", *options]) == 0
        assert called.pop() == (("model", ["train_data"]), {"verbose": "-v" in options})
        assert capsys.readouterr().out == f"{first}\ntrain mode\n"
    monkeypatch.undo()
    assert legacy.main(["-l", str(tmp_path / "model"), str(tmp_path / "absent")]) == 1
    assert "does not exist" in capsys.readouterr().err  # before Keras is looked for
    assert not (tmp_path / "model").exists()


def test_learning_without_keras_names_what_to_install(tmp_path, walk, in_fresh_process):
    data = str(tmp_path / "data.h5")
    with h5py.File(data, "w") as f:
        f["x"] = walk
    printed = in_fresh_process(
        f"""
        import sys
        sys.modules["keras"] = None
        import tezip_h5
        from tezip_h5.cli import legacy, main
        try:
            tezip_h5.train({str(tmp_path / "model")!r}, {data!r})
        except tezip_h5.InputError as error:
            print(error)
        sys.stderr = sys.stdout
        print(main(["train", {str(tmp_path / "model")!r}, {data!r}]))
        print(legacy.main(["-l", {str(tmp_path / "model")!r}, {data!r}]))
        """
    )
    assert printed.count("pip install 'tezip_h5[train]'") == 3
    assert printed.split("\n")[2] == printed.split("\n")[4] == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["data.h5"]


def test_the_demo(tmp_path, capsys):
    assert main(["demo", "--folder", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("yes") == 3
    assert (tmp_path / "demo" / "run_lossless.h5").exists()


def test_the_demo_looks_at_its_options_first(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for option, words in [
        (["--threads", "0", "--folder", str(tmp_path / "new")], "--threads 0: give a number >= 1"),
        (["--folder", str(tmp_path / "full")], "is not empty"),
    ]:
        assert main(["demo", *option]) == 1
        printed = capsys.readouterr()
        assert words in printed.err
        assert printed.out == ""
    assert not (tmp_path / "new").exists()


def test_a_module_can_be_run(run_h5):
    result = subprocess.run(
        [sys.executable, "-m", "tezip_h5", "inspect", str(run_h5)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "scan" in result.stdout


def test_bench(tmp_path, walk, capsys):
    with h5py.File(tmp_path / "in.h5", "w") as f:
        f["x"] = walk
    table = tmp_path / "rows.csv"
    args = ["bench", f"{tmp_path}/in.h5", "--bounds", "0", "2", "--csv", str(table)]
    assert main([*args, "--only", "tezip", "difference", "blosc bitshuffle", "sz3"]) == 0
    printed = capsys.readouterr().out
    assert "geometric mean" in printed
    lines = table.read_text().splitlines()
    assert lines[0].startswith("stack,shape,dtype,codec,bound,bytes")
    assert len(lines) >= 1 + 3 + 2 + 3
    assert main(["bench", str(tmp_path / "rows.csv")]) == 1
    assert main(["bench", f"{tmp_path}/in.h5", "--threads", "0"]) == 1


def test_what_hdf5_says_of_damage(tmp_path, capsys):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert cli.guarded("tezip-h5", lambda: h5py.h5g.get_objinfo(file.id, b"gone")) == 2
    said = capsys.readouterr().err
    assert said.startswith("tezip-h5: a file is damaged, HDF5 says: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("closing", [opening.closing, contextlib.nullcontext])
def test_what_hdf5_says_of_a_full_disk(tmp_path, closing, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_of_hdf5", lambda error: True)
    said = "Unable to copy object (filename = '{}', errno = 28, error message = 'No space', n = 1)"
    path = tmp_path / "a.h5"

    def full():
        with closing(h5py.File(path, "w")):
            raise RuntimeError(said.format(path))

    assert cli.guarded("tezip-h5", full) == 1
    words = capsys.readouterr().err
    assert words == f"tezip-h5: [Errno 28] {os.strerror(28)}: {str(path)!r}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_a_disk_that_is_full_already_is_one_line(tmp_path, capsys):
    assert cli.guarded("tezip-h5", lambda: h5py.File("/dev/full", "r+")) == 1
    assert capsys.readouterr().err == f"tezip-h5: [Errno 28] {os.strerror(28)}: '/dev/full'\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("for an array of 2 TiB"), "out of memory (for an array of 2 TiB);"),
        (MemoryError(), "out of memory;"),
        (RuntimeError("can't start new thread"), "can't start new thread: "),
    ],
)
def test_what_the_machine_cannot_give_is_one_line(error, words, capsys):
    def run():
        raise error

    assert cli.guarded("tezip-h5", run) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tezip-h5: {words}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("cause", "words", "code"),
    [
        (MemoryError(), "out of memory;", 1),
        (ModelError("model 3c79 is missing"), "model 3c79 is missing", 1),
        (FormatError("its checksum does not fit"), "its checksum does not fit", 2),
    ],
)
def test_why_the_filter_failed(run_h5, tmp_path, cause, words, code, monkeypatch, capsys):
    """HDF5 knows no reason, and not every one is damage."""

    def fail(*_):
        raise cause

    monkeypatch.setattr(filter, "decode", fail)
    assert main(["compress", "none", str(run_h5), str(tmp_path / "new.h5")]) == code
    said = capsys.readouterr().err
    assert f"tezip-h5: {words}" in said
    assert "is damaged" not in said


def test_other_errors_are_not_hidden(tmp_path):
    def ours():
        raise RuntimeError("not of HDF5")

    with pytest.raises(RuntimeError, match="not of HDF5"):
        cli.guarded("tezip-h5", ours)
    with h5py.File(tmp_path / "a.h5", "w") as file, pytest.raises(KeyError):
        cli.guarded("tezip-h5", lambda: file["a name that we got wrong"])
