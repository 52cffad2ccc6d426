"""hickle's files with h5py alone: what the real package writes and loads, and what is refused.

The files of hickle 3, 4 and 5 are built here as those versions (3.4.9, 4.0.4, 5.0.3) were seen to
write them; the real package, where it is installed, checks both directions.
"""

import pickle

import h5py
import numpy as np
import pytest

from tezip_h5.errors import InputError
from tezip_h5.model import hickle

FRAMES = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
NAMES = ["city-a", "city-a", "straße", "b", "city-a"]


def made_by_3(path, what):
    with h5py.File(path, "w") as f:
        f.attrs.update({"CLASS": b"hickle", "VERSION": b"3.4.9", "PYTHON_VERSION": b"3.6.8"})
        f.attrs["type"] = [b"hickle"]
        if isinstance(what, np.ndarray):
            f["data_0"] = what
            f["data_0"].attrs["type"] = [b"ndarray"]
        elif isinstance(what, list):
            f.create_dataset("data_0", data=what, dtype=h5py.string_dtype())
            f["data_0"].attrs["type"] = [b"<class 'list'>"]
            f["data_0"].attrs["py3_string_type"] = [b"<class 'str'>"]
        else:
            f["data_0"] = np.array([pickle.dumps(what, 0)], "S")
            f["data_0"].attrs["type"] = [b"pickle"]


def made_by_4(path, what):
    with h5py.File(path, "w") as f:
        f.attrs.update({"HICKLE_VERSION": "4.0.4", "HICKLE_PYTHON_VERSION": "3.8.5"})
        if isinstance(what, np.ndarray):
            f["data"] = what
            f["data"].attrs.update({"base_type": b"ndarray", "np_dtype": b"uint8"})
        elif isinstance(what, list):
            f.create_dataset("data", data=what, dtype=h5py.string_dtype())
            f["data"].attrs.update({"base_type": b"list", "str_type": b"str"})
        else:
            f["data"] = np.bytes_(pickle.dumps(what))
            f["data"].attrs["base_type"] = b"pickle"
            return
        f["data"].attrs["type"] = np.bytes_(pickle.dumps(type(what)))


def made_by_5(path, what):
    with h5py.File(path, "w") as f:
        f.attrs.update({"HICKLE_VERSION": "5.0.3", "HICKLE_PYTHON_VERSION": "3.11.7"})
        table = f.create_group("hickle_types_table", track_order=True)

        def entry(kind):
            name = kind.__name__
            if name not in table:
                data = np.frombuffer(pickle.dumps(kind), "S1").reshape(1, -1)
                made = table.create_dataset(str(len(table)), data=data)
                made.attrs["base_type"] = table.create_dataset(name, None, "S1").ref
                table[name].attrs["seen"] = made.ref
            return table[name].attrs["seen"]

        if isinstance(what, np.ndarray):
            f["data"] = what
            f["data"].attrs.update({"np_dtype": b"|u1", "type": entry(np.ndarray)})
        elif isinstance(what, list):
            group, seen = f.create_group("data"), {}
            group.attrs.update({"num_items": len(what), "type": entry(list)})
            for i, name in enumerate(what):
                if name in seen:
                    group.create_dataset(f"data{i}", data=seen[name].ref, dtype=h5py.ref_dtype)
                else:
                    data = np.frombuffer(name.encode(), "S1").reshape(1, -1)
                    seen[name] = group.create_dataset(f"data{i}", data=data)
                    seen[name].attrs.update({"str_type": b"str", "type": entry(str)})
                group[f"data{i}"].attrs["item_index"] = i
        else:
            f["data"] = np.frombuffer(pickle.dumps(what), "u1")


MAKERS = [made_by_3, made_by_4, made_by_5]


def array(path):
    with hickle.opened(path) as f:
        return hickle.open_array(f)[...]


@pytest.mark.parametrize("make", MAKERS)
def test_files_of_every_version_are_read(make, tmp_path):
    make(tmp_path / "X.hkl", FRAMES)
    make(tmp_path / "s.hkl", NAMES)
    np.testing.assert_array_equal(array(tmp_path / "X.hkl"), FRAMES)
    assert hickle.read_names(tmp_path / "s.hkl") == NAMES


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("make", MAKERS)
def test_a_pickle_is_refused_and_not_looked_into(make, tmp_path):
    make(tmp_path / "X.hkl", Bomb())
    with pytest.raises(InputError, match="pickled"):
        array(tmp_path / "X.hkl")
    with pytest.raises(InputError, match="pickled"):
        hickle.read_names(tmp_path / "X.hkl")


@pytest.mark.parametrize("make", MAKERS)
def test_one_for_the_other_is_refused(make, tmp_path):
    make(tmp_path / "X.hkl", FRAMES)
    make(tmp_path / "s.hkl", NAMES)
    with pytest.raises(InputError, match="list of names"):
        hickle.read_names(tmp_path / "X.hkl")
    with pytest.raises(InputError, match="an array of frames was expected"):
        array(tmp_path / "s.hkl")


def test_what_is_written_reads_back(tmp_path):
    with hickle.ArrayWriter(tmp_path / "X.hkl", FRAMES.shape) as out:
        out.append(FRAMES[:1])
        out.append(FRAMES[1:])
    hickle.write_names(tmp_path / "s.hkl", NAMES)
    hickle.write_names(tmp_path / "none.hkl", [])
    np.testing.assert_array_equal(array(tmp_path / "X.hkl"), FRAMES)
    assert hickle.read_names(tmp_path / "s.hkl") == NAMES
    assert hickle.read_names(tmp_path / "none.hkl") == []


def test_a_long_list_is_written_and_read_in_no_time(tmp_path):
    names = [f"city-{i // 300}" for i in range(30_000)]
    hickle.write_names(tmp_path / "s.hkl", names)
    assert hickle.read_names(tmp_path / "s.hkl") == names
    assert (tmp_path / "s.hkl").stat().st_size < 200 * len(names)


def test_the_real_package_loads_what_is_written(tmp_path):
    real = pytest.importorskip("hickle", minversion="5")
    with hickle.ArrayWriter(tmp_path / "X.hkl", FRAMES.shape) as out:
        out.append(FRAMES)
    names = NAMES * 300
    hickle.write_names(tmp_path / "s.hkl", names)
    hickle.write_names(tmp_path / "none.hkl", [])
    back = real.load(str(tmp_path / "X.hkl"))
    assert type(back) is np.ndarray
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, FRAMES)
    assert real.load(str(tmp_path / "s.hkl")) == names
    assert real.load(str(tmp_path / "none.hkl")) == []


@pytest.mark.filterwarnings("ignore:.*data is serialized")
def test_what_the_real_package_writes_is_read(tmp_path):
    real = pytest.importorskip("hickle", minversion="5")
    real.dump(FRAMES, str(tmp_path / "X.hkl"), mode="w", compression="gzip")
    np.testing.assert_array_equal(array(tmp_path / "X.hkl"), FRAMES)
    for names in (NAMES, [], ["one"], ["x", "y"]):
        real.dump(names, str(tmp_path / "s.hkl"), mode="w")
        assert hickle.read_names(tmp_path / "s.hkl") == names
    for other in ({"a": 1}, ["a", 1], 5, "text", Bomb):
        real.dump(other, str(tmp_path / "s.hkl"), mode="w")
        with pytest.raises(InputError):
            hickle.read_names(tmp_path / "s.hkl")
        with pytest.raises(InputError):
            array(tmp_path / "s.hkl")


def test_a_writer_wants_as_many_frames_as_announced(tmp_path):
    out = hickle.ArrayWriter(tmp_path / "X.hkl", FRAMES.shape)
    out.append(FRAMES[:1])
    with pytest.raises(InputError, match="1 of 2 frames"):
        out.close()
    with hickle.ArrayWriter(tmp_path / "X.hkl", FRAMES.shape) as out:
        with pytest.raises(InputError, match="as announced"):
            out.append(np.concatenate([FRAMES, FRAMES]))
        with pytest.raises(InputError, match="all alike"):
            out.append(FRAMES[:, :2])
        out.append(FRAMES)


def no_hdf5(path):
    path.write_bytes(b"PK not HDF5 at all")


def plain_hdf5(path):
    with h5py.File(path, "w") as f:
        f["data"] = FRAMES


def of_another_version(path):
    made_by_5(path, FRAMES)
    with h5py.File(path, "a") as f:
        f.attrs["HICKLE_VERSION"] = "7.0.0"


def without_an_object(path):
    made_by_5(path, FRAMES)
    with h5py.File(path, "a") as f:
        del f["data"]


def without_its_types(path):
    made_by_5(path, FRAMES)
    with h5py.File(path, "a") as f:
        del f["hickle_types_table"]


def of_two_dimensions(path):
    made_by_4(path, FRAMES[0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_hdf5, "no HDF5 file"),
        (plain_hdf5, "none that hickle wrote"),
        (of_another_version, "hickle 7.0.0"),
        (without_an_object, "holds no object"),
        (without_its_types, "damaged"),
        (of_two_dimensions, "expected"),
        (lambda path: None, "missing"),
    ],
)
def test_what_is_no_training_data_is_refused(make, message, tmp_path):
    make(tmp_path / "X.hkl")
    with pytest.raises(InputError, match=message):
        array(tmp_path / "X.hkl")
    with pytest.raises(InputError):
        hickle.read_names(tmp_path / "X.hkl")


def test_a_list_that_lacks_items_is_refused(tmp_path):
    made_by_5(tmp_path / "s.hkl", NAMES)
    with h5py.File(tmp_path / "s.hkl", "a") as f:
        del f["data/data3"]
    with pytest.raises(InputError, match="lacks items"):
        hickle.read_names(tmp_path / "s.hkl")


def test_every_truncation_is_refused(tmp_path):
    made_by_5(tmp_path / "s.hkl", NAMES)
    whole = (tmp_path / "s.hkl").read_bytes()
    for length in range(0, len(whole) - 1, 997):
        (tmp_path / "s.hkl").write_bytes(whole[:length])
        with pytest.raises(InputError):
            hickle.read_names(tmp_path / "s.hkl")
