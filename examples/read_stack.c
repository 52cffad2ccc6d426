/* Read a compressed stack from C. This program needs no code for decompression.
 *
 *     h5cc -o read_stack read_stack.c
 *     HDF5_PLUGIN_PATH="$(tezip-h5 plugin path)" ./read_stack run.h5 scan/data
 */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    hsize_t size[4] = {0}, start[4] = {0}, count[4];
    if (argc != 3) {
        fprintf(stderr, "usage: %s FILE.h5 DATASET\n", argv[0]);
        return 1;
    }
    hid_t file = H5Fopen(argv[1], H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t data = file < 0 ? -1 : H5Dopen2(file, argv[2], H5P_DEFAULT);
    hid_t space = data < 0 ? -1 : H5Dget_space(data);
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (rank != 3 && rank != 4)
        return 1;
    H5Sget_simple_extent_dims(space, size, NULL);
    hsize_t samples = 1;
    for (int axis = 0; axis < 4; axis++)
        count[axis] = axis == 0 || axis >= rank ? 1 : size[axis];
    for (int axis = 1; axis < rank; axis++)
        samples *= size[axis];
    double *frame = malloc(samples * sizeof *frame);
    hid_t memory = H5Screate_simple(rank, count, NULL);
    int failed = frame == NULL;
    for (start[0] = 0; start[0] < size[0] && !failed; start[0]++) {
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
        failed = H5Dread(data, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, frame) < 0;
        double sum = 0;
        for (hsize_t i = 0; i < samples && !failed; i++)
            sum += frame[i];
        if (!failed)
            printf("frame %llu: mean %.6f\n", (unsigned long long)start[0], sum / (double)samples);
    }
    free(frame);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(data);
    H5Fclose(file);
    return failed;
}
