/*
 * What the kernels of linear share.
 */
#ifndef GATUN_CUDA_LINEAR_CUH
#define GATUN_CUDA_LINEAR_CUH

#include "epilogue.cuh"
#include "packed.cuh"

namespace gatun {

/* The x of a call as it came. */
struct XRows {
    const void *data;
    int32_t type;
    int64_t ld;
    const float *multiplier;
};

/* A launch of the kernel on tiles of codes. */
struct TileLinear {
    const uint4 *codes;
    const void *scales;
    const float *zeros;   /* null: none */
    const float *offsets; /* null: none */
    const float *table;
    XRows rows;
    const uint4 *x; /* the same in the order of the operands; null when the kernel reads it as it came */
    int64_t n, k, m, tiles, steps, group, groups;
    uint32_t steps_per_group_inverse; /* 2^32 / steps rounded up; 0 for one step (or part of one) a group */
    int32_t scale_type;
    Epilogue epilogue;
};

/* Rows of x, in eights, that a launch takes at once. */
int tile_columns(int64_t m);
int64_t tile_x_bytes(int64_t m, int64_t steps);
/* For codes of BITS bits with GROUPS scale groups a step of 64 k: linear_tiles_instance.cu. */
template <int BITS, int GROUPS>
gatun_status launch_tiles(const TileLinear &p, int multiprocessors, cudaStream_t stream);
gatun_status launch_linear_tiles(TileLinear p, int bits, uint32_t *workspace, int multiprocessors, cudaStream_t stream);

/* Every form and encoding: float products of x and the weights, both rounded to `operands` (F32: exact, or BF16). */
gatun_status launch_linear_f32(const gatun_cuda_packed &packed, const XRows &x, int64_t m, int32_t operands,
                               const Epilogue &epilogue, cudaStream_t stream);

/* compute BF16 through a dense product; `tiles` describes the weight when it lies in tiles, else null. */
int64_t dense_bytes(const gatun_cuda_packed &packed, int64_t m);
gatun_status linear_dense(int32_t device, const gatun_cuda_packed &packed, const TileLinear *tiles, const XRows &x,
                          int64_t m, const Epilogue &epilogue, uint8_t *workspace, cudaStream_t stream);

/* y = a * b^T in bfloat16 with float sums, through cuBLASLt; GATUN_UNSUPPORTED when it is not there. */
gatun_status blas_bf16(int32_t device, const void *a, const void *b, void *y, int32_t y_type, int64_t ldy, int64_t m,
                       int64_t n, int64_t k, void *workspace, int64_t workspace_size, cudaStream_t stream);

} // namespace gatun

#endif
