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
    uint32_t steps_per_group_inverse; /* 2^31 / steps + 1 */
    int32_t groups_per_step;          /* 1, 2 or 4 */
    int32_t scale_type;
    Epilogue epilogue;
};

/* The parts of a call. */
TileLinear tiles_of(const gatun_cuda_packed &packed, const XRows &x, int64_t m, const Epilogue &epilogue);
Epilogue epilogue_of(gatun_cuda_ptr y, int32_t y_type, int64_t ldy, gatun_cuda_ptr bias, int32_t activation,
                     int32_t combine, gatun_cuda_ptr other, int64_t ld_other);

/* How a product is multiplied; linear.cu says why. */
enum class Way {
    GENERAL,
    NARROW,
    WIDE,
    HOPPER_NARROW,
    HOPPER_HELD,
    HOPPER_FEW,
    HOPPER_FUSED,
    HOPPER_WIDE,
    DENSE,
    CODES_DENSE,
    HOPPER_CODES,
    CODES_WIDENED,
    CODES_GENERAL
};

/* What a device is, found once. */
struct DeviceTraits {
    int multiprocessors;
    int shared_bytes; /* that a block may have */
    bool hopper;      /* compute capability 9.0, and this library was built for it */
};
gatun_status device_traits(int32_t device, DeviceTraits *out);

/* Scratch of the kernels on tiles: x in the order of the operands, or in rows of bfloat16. */
int64_t tile_x_bytes(int64_t m, int64_t steps);
/* x for `nt` times eight rows at a time; bytes, groups: see column_of. */
const uint4 *lay_out_x(const TileLinear &p, int nt, bool bytes, bool groups, uint32_t *workspace, cudaStream_t stream);
/* x as rows of pairs of bfloat16: as it came, if it is that. */
XRows rows_of_pairs(const TileLinear &p, uint32_t *workspace, cudaStream_t stream);
/* For codes of BITS bits: linear_tiles_instance.cu. */
template <int BITS>
gatun_status launch_tiles(TileLinear p, uint32_t *workspace, const DeviceTraits &device, cudaStream_t stream);
template <>
gatun_status launch_tiles<4>(TileLinear p, uint32_t *workspace, const DeviceTraits &device, cudaStream_t stream);
template <>
gatun_status launch_tiles<8>(TileLinear p, uint32_t *workspace, const DeviceTraits &device, cudaStream_t stream);
Way tiles_way(const TileLinear &p, int bits, const DeviceTraits &traits);
gatun_status launch_linear_tiles(const TileLinear &p, int bits, uint32_t *workspace, int32_t device,
                                 cudaStream_t stream);

/* Clusters at most that share tiles (hopper_share.cuh), and what they leave there. */
enum { GATUN_CUDA_SHARE_CLUSTERS = 72, GATUN_CUDA_SHARE_BYTES = GATUN_CUDA_SHARE_CLUSTERS * (4 * 128 * 128 * 4 + 256) };

/* compute BF16 on Hopper for 4-bit codes; x in rows of bfloat16 that fit the copy engine: rows_to_copy. hopper_fused.cu
 */
gatun_status launch_fused(const TileLinear &p, int multiprocessors, cudaStream_t stream);
/* The same for more than 64 rows of x; a workspace of GATUN_CUDA_SHARE_BYTES. hopper_wide.cu */
gatun_status launch_wide(const TileLinear &p, int multiprocessors, void *workspace, cudaStream_t stream);
/* The same for up to eight rows of pairs (rows_of_pairs), one or two scale groups a step, the latter of 16 bits,
 * without zero points and offsets. hopper_narrow.cu */
gatun_status launch_narrow(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream);
/* The same for up to 16 rows that fit the copy engine (rows_to_copy). A warp holds its part of x if K has no more steps
 * than these, which more than eight rows need. hopper_held.cu */
enum { GATUN_CUDA_HELD_STEPS = 64 };
gatun_status launch_held(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream);
/* The same for up to 64 rows that fit the copy engine (rows_to_copy). hopper_few.cu */
gatun_status launch_few(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream);
/* x as rows of bfloat16, 16 bytes aligned: as it came, if it is that. */
XRows rows_to_copy(const TileLinear &p, uint32_t *workspace, cudaStream_t stream);

/* x as 8-bit codes: rows of bytes, 16 bytes aligned. Scales of rows are the epilogue's; those of 128 k lie as
 * [block of k][padded rows]. */
enum { GATUN_CUDA_BLOCK_K = 128, GATUN_CUDA_CODES_ROWS = 256 };
struct CodesOfX {
    const void *codes;
    int64_t ld;
    const float *block_scales; /* null: none */
    int64_t padded;            /* rows: GATUN_CUDA_CODES_ROWS more than there are, at least */
};
/* compute F8 and I8 on Hopper for 8-bit codes with scales of rows, or (F8) of multiples of 128 k. hopper_codes.cu */
gatun_status launch_codes(const TileLinear &p, const CodesOfX &x, bool integers, int multiprocessors,
                          cudaStream_t stream);
/* The same for many rows of x; scales of 128 k are those of 64 rows of W at least; a workspace of
 * GATUN_CUDA_SHARE_BYTES. hopper_codes_wide.cu */
gatun_status launch_codes_wide(const TileLinear &p, const CodesOfX &x, bool integers, int multiprocessors,
                               void *workspace, cudaStream_t stream);
/* Every form and encoding: float products of x and the weights, both rounded to `operands` (F32: exact, or BF16). I8: x
 * is codes, and those of a weight in the source form are scaled without rounding. */
gatun_status launch_linear_f32(const gatun_cuda_packed &packed, const XRows &x, int64_t m, int32_t operands,
                               const Epilogue &epilogue, cudaStream_t stream);

/* compute BF16 through a dense product; `tiles` describes the weight when it lies in tiles, else null. */
int64_t dense_bytes(const gatun_cuda_packed &packed, int64_t m);
gatun_status linear_dense(int32_t device, const gatun_cuda_packed &packed, const TileLinear *tiles, const XRows &x,
                          int64_t m, const Epilogue &epilogue, uint8_t *workspace, cudaStream_t stream);

/* x that comes as codes, with scales of rows or (scale_block 128) of blocks of k; strides in elements. */
struct GivenX {
    const void *codes;
    int32_t type; /* I8 or F8_E4M3 */
    int64_t ld;
    const float *scales;
    int64_t scale_block;
    int64_t scale_row_stride, scale_col_stride;
};

/* x as codes that bfloat16 holds, those of blocks times their scales, in rows of `row` elements. */
void quantize_widened(const XRows &x, int64_t m, int64_t k, int32_t compute, uint16_t *codes, int64_t row,
                      float *row_scales, cudaStream_t stream);

/* compute I8, F8 and F8_BLOCK; x from p.rows, or `given` as codes. */
bool codes_multiply(int32_t compute, int32_t encoding);
bool takes_codes(const gatun_cuda_packed &p, int32_t compute);
/* Whether Hopper's kernels multiply the codes as bytes, with the granularity that they know. */
bool multiplies_bytes(const gatun_cuda_packed &p, int32_t compute);
Way codes_way(const gatun_cuda_packed &packed, const TileLinear &p, int32_t compute, const DeviceTraits &traits);
int64_t codes_bytes(const gatun_cuda_packed &p, int64_t m);
gatun_status linear_codes(int32_t device, const gatun_cuda_packed &packed, const TileLinear &p, const GivenX *given,
                          int32_t compute, uint8_t *workspace, cudaStream_t stream);

/* y = x * w^T in bfloat16, or in e4m3 with scales of the rows of both, float sums, through cuBLASLt; GATUN_UNSUPPORTED
 * when it is not there or has no kernel. Strides in elements. */
struct DenseProduct {
    const void *x;
    int64_t ldx;
    const void *w;
    int64_t ldw;
    void *y;
    int64_t ldy;
    int32_t y_type;
    int64_t m, n, k;
    const float *x_scales, *w_scales;
    bool e4m3;
};
gatun_status blas_product(int32_t device, const DenseProduct &d, void *workspace, int64_t workspace_size,
                          cudaStream_t stream);

} // namespace gatun

#endif
