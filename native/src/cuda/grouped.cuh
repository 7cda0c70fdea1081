/*
 * What the kernels of grouped linear share: several weights, each for a run of rows of x and y, whose begins only the
 * device knows. A plan cuts the runs into chunks, each of which blocks of threads take as they would take all rows of
 * one weight.
 */
#ifndef GATUN_CUDA_GROUPED_CUH
#define GATUN_CUDA_GROUPED_CUH

#include <cuda.h>

#include "linear.cuh"

namespace gatun {

/* One of the weights, on the device. */
struct GroupedExpert {
    gatun_cuda_packed packed;
    TileLinear tiles; /* of its packed form, without rows and epilogue; unset where it lies as it came */
    const float *bias;
    const float *multiplier;
    CUtensorMap w; /* 8-bit codes of W as Hopper's copy engine reads them; unset where it does not */
};

/* Rows of one weight; expert -1: none. */
struct GroupedChunk {
    int32_t expert;
    int32_t rows;
    int64_t row;
};

/* Rows of a chunk at most, for the kernels of all GPUs. */
enum { GROUPED_FEW_ROWS = 16, GROUPED_ROWS = 64 };
/* For a Hopper kernel that reads weights for a few rows each. */
enum { GROUPED_STREAM_ROWS = 8 };

struct GroupedRows {
    const GroupedExpert *experts;
    const GroupedChunk *plan;
    int64_t chunks; /* more than there can be are empty; behind them one whose row says how many are not */
    int chunk_rows;
    int64_t m, n, k, tiles, steps;
    bool one;       /* scale group a step at most */
    bool affine;    /* some have zero points or offsets */
    int64_t filled; /* experts with rows, at most */
    XRows x;
    Epilogue epilogue;
};

/* x of each chunk for the kernel on tiles; see lay_out_x. */
const uint4 *lay_out_chunks(const GroupedRows &g, bool bytes, bool groups, uint32_t *workspace, cudaStream_t stream);
/* compute BF16 by codes of BITS bits, all of one group size. linear_tiles_instance.cu */
template <int BITS>
gatun_status launch_grouped(const GroupedRows &g, const DeviceTraits &device, uint32_t *workspace, cudaStream_t stream);
template <>
gatun_status launch_grouped<4>(const GroupedRows &g, const DeviceTraits &device, uint32_t *workspace,
                               cudaStream_t stream);
template <>
gatun_status launch_grouped<8>(const GroupedRows &g, const DeviceTraits &device, uint32_t *workspace,
                               cudaStream_t stream);
/* compute BF16 by alike codes of 4 bits on Hopper, without zero points and offsets, one scale group a step or two of 16
 * bits; chunks of GROUPED_STREAM_ROWS. p: as for launch_grouped_fused. hopper_grouped_stream.cu */
gatun_status launch_grouped_stream(const GroupedRows &g, const TileLinear &p, const DeviceTraits &device,
                                   cudaStream_t stream);
/* compute BF16 by alike codes of 4 bits on Hopper; chunks of 16, 64, 128 or 256 rows. `p`: what the experts have in
 * common, with x in rows that fit the copy engine (rows_to_copy). hopper_grouped.cu */
gatun_status launch_grouped_fused(const GroupedRows &g, const TileLinear &p, int multiprocessors, cudaStream_t stream);
/* compute I8, F8 and F8_BLOCK by alike codes of 8 bits on Hopper; chunks of 64, 128 or (but I8) 192 rows. x: codes of
 * chunk after chunk, each with room for all of its rows (quantize_chunks). hopper_grouped_codes.cu */
gatun_status launch_grouped_codes(const GroupedRows &g, const TileLinear &p, const CodesOfX &x, bool integers,
                                  int multiprocessors, cudaStream_t stream);
gatun_status describe_codes(GroupedExpert *expert);
/* x of each chunk, times the multiplier of its expert, as codes for that; scales of rows as rows of x lie.
 * linear_codes.cu */
void quantize_chunks(const GroupedRows &g, int32_t compute, void *codes, int64_t row, float *row_scales,
                     float *block_scales, cudaStream_t stream);
/* Everything else: launch_linear_f32. */
gatun_status launch_grouped_f32(const GroupedRows &g, int32_t operands, cudaStream_t stream);

} // namespace gatun

#endif
