"""Compress a stack with the workers of a dask cluster, and read it lazily.

This needs ``pip install "tezip_h5[dask]"``.
"""

import h5py
from distributed import Client, LocalCluster

import tezip_h5
from tezip_h5.simulate import detector_sequence


def main():
    with h5py.File("raw.h5", "w") as file:  # in practice, a file on a disk that all workers see
        file["entry/images"] = detector_sequence(frames=96)

    # On a real cluster, use Client("tcp://SCHEDULER:8786"). Here two processes are the workers.
    local = LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with local, Client(local):
        frames = tezip_h5.to_dask("raw.h5", "entry/images")  # or any other dask array
        frames = frames - frames.min(axis=0)  # the workers compute this, too
        print(tezip_h5.write(frames, "small.h5", absolute=2, level="fast", overwrite=True))

        lazy = tezip_h5.to_dask("small.h5")  # nothing is read yet
        print(lazy)
        print("brightest sample of all frames:", lazy.max().compute())


if __name__ == "__main__":  # worker processes import this file
    main()
