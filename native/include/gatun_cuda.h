/*
 * gatun_cuda.h: the whole GPU ABI of Gatun.
 *
 * Words, encodings, matrices and rules are those of gatun.h; what differs:
 *  - The library loads on machines without a GPU or driver; everything that needs one then answers GATUN_NO_DEVICE.
 *  - Pointers inside a matrix and the data arguments of operations are device pointers unless a comment says host. The
 *    structs themselves are host memory and are copied at the call.
 *  - Every operation takes a device, a stream and, where it needs scratch, a workspace; it is asynchronous, never
 *    synchronizes behind the caller's back, allocates nothing and can be captured in a graph.
 *  - Handles (streams, events, graphs) and device addresses are 64-bit numbers: they cannot be dereferenced by mistake.
 *
 * The Java bindings are generated from this file alone, never from CUDA's own headers.
 */
#ifndef GATUN_CUDA_H
#define GATUN_CUDA_H

#include "gatun.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GATUN_CUDA_ABI_VERSION 1

/* A device address, stream, event or executable graph; 0 is none (for streams: the legacy default stream). */
typedef uint64_t gatun_cuda_ptr;
typedef uint64_t gatun_cuda_stream;
typedef uint64_t gatun_cuda_event;
typedef uint64_t gatun_cuda_graph;

typedef struct gatun_cuda_device {
    char name[256];
    int32_t major; /* compute capability */
    int32_t minor;
    int32_t multiprocessors;
    int32_t l2_bytes;
    int64_t memory_bytes;
} gatun_cuda_device;

/* How a weight lies on the device once it is packed: a host struct that the caller keeps, and one device block. */
typedef struct gatun_cuda_packed {
    gatun_matrix matrix; /* the description that was packed; its pointers lie in the block or are null */
    gatun_cuda_ptr block;
    int64_t block_size;
    int32_t form;
    int32_t scale_type; /* of the tiles: F32, F16 or BF16 */
    int64_t group;      /* k per scale in the tiles, a multiple of 16 */
    int64_t groups;
    int64_t tiles; /* of 16 rows */
    int64_t steps; /* of 64 k */
    /* From the block's start; 0: no such part. */
    int64_t table_offset; /* 2^bits floats: what a code means */
    int64_t codes_offset;
    int64_t scales_offset;
    int64_t zeros_offset;   /* F32, subtracted from the code before scaling */
    int64_t offsets_offset; /* F32, added after scaling */
} gatun_cuda_packed;

/* Compute types beside gatun.h's. A row (or run) of x with NaN or infinity comes out as NaN, here and with
 * GATUN_COMPUTE_I8. */
enum {
    GATUN_COMPUTE_F8 = 5,      /* x quantized per row to F8_E4M3 (absmax/448, saturating), float sums */
    GATUN_COMPUTE_F8_BLOCK = 6 /* the same, but x quantized per 128 consecutive k */
};

/* One row of the kernel table; `sm` is the lowest compute capability it runs on, times ten. */
typedef struct gatun_cuda_kernel {
    int32_t operation;
    int32_t compute;
    int32_t encoding;
    int32_t sm;
    const char *name; /* <operation>_<activation>_<weight>__sm<sm>, a static string */
} gatun_cuda_kernel;

/* ---- library ---- */
GATUN_API int32_t gatun_cuda_abi_version(void);
/* One line about the calling thread's last failure; never null. */
GATUN_API const char *gatun_cuda_last_error(void);
/* The versions of CUDA that the driver supports and that this library was built with, times 1000 (13000); 0: no driver.
 */
GATUN_API gatun_status gatun_cuda_versions(int32_t *driver, int32_t *runtime);
/* OK, or GATUN_UNSUPPORTED with what was looked for: whether dense products can go to cuBLASLt. */
GATUN_API gatun_status gatun_cuda_blas_check(void);
GATUN_API int32_t gatun_cuda_kernel_count(void);
GATUN_API gatun_status gatun_cuda_kernel_at(int32_t index, gatun_cuda_kernel *out);
/* The table index of the kernel that the calling thread's last operation launched; -1 before the first. */
GATUN_API int32_t gatun_cuda_last_kernel(void);

/* ---- devices and memory ---- */
GATUN_API gatun_status gatun_cuda_device_count(int32_t *count);
GATUN_API gatun_status gatun_cuda_device_at(int32_t device, gatun_cuda_device *out);
GATUN_API gatun_status gatun_cuda_memory(int32_t device, int64_t *free_bytes, int64_t *total_bytes);
/* From the device's pool, in stream order. GATUN_OUT_OF_MEMORY says bytes asked and free. */
GATUN_API gatun_status gatun_cuda_allocate(int32_t device, int64_t size, gatun_cuda_stream stream, gatun_cuda_ptr *out);
GATUN_API gatun_status gatun_cuda_free(int32_t device, gatun_cuda_ptr ptr, gatun_cuda_stream stream);
/* Page-locked host memory, for copies that overlap with kernels. */
GATUN_API gatun_status gatun_cuda_host_allocate(int32_t device, int64_t size, void **out);
GATUN_API gatun_status gatun_cuda_host_free(void *ptr);
/* `src` or `dst` is host memory: read or written until the stream has passed the copy when it is page-locked. */
GATUN_API gatun_status gatun_cuda_upload(int32_t device, gatun_cuda_ptr dst, const void *src, int64_t size,
                                         gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_download(int32_t device, void *dst, gatun_cuda_ptr src, int64_t size,
                                           gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_copy(int32_t device, gatun_cuda_ptr dst, gatun_cuda_ptr src, int64_t size,
                                       gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_fill(int32_t device, gatun_cuda_ptr dst, int32_t byte, int64_t size,
                                       gatun_cuda_stream stream);

/* ---- streams, events, graphs ---- */
GATUN_API gatun_status gatun_cuda_stream_create(int32_t device, gatun_cuda_stream *out);
GATUN_API gatun_status gatun_cuda_stream_destroy(int32_t device, gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_stream_synchronize(int32_t device, gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_event_create(int32_t device, gatun_cuda_event *out);
GATUN_API gatun_status gatun_cuda_event_destroy(int32_t device, gatun_cuda_event event);
GATUN_API gatun_status gatun_cuda_event_record(int32_t device, gatun_cuda_event event, gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_event_synchronize(int32_t device, gatun_cuda_event event);
GATUN_API gatun_status gatun_cuda_stream_wait(int32_t device, gatun_cuda_stream stream, gatun_cuda_event event);
GATUN_API gatun_status gatun_cuda_event_elapsed(int32_t device, gatun_cuda_event from, gatun_cuda_event to, float *ms);
/* What the stream is given between the two calls is recorded, not run. */
GATUN_API gatun_status gatun_cuda_capture_begin(int32_t device, gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_capture_end(int32_t device, gatun_cuda_stream stream, gatun_cuda_graph *out);
GATUN_API gatun_status gatun_cuda_graph_launch(int32_t device, gatun_cuda_graph graph, gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_graph_destroy(int32_t device, gatun_cuda_graph graph);

/* ---- codecs: the bytes of the CPU's ---- */
GATUN_API gatun_status gatun_cuda_convert(int32_t device, gatun_cuda_ptr src, int32_t src_type, gatun_cuda_ptr dst,
                                          int32_t dst_type, int64_t count, int32_t saturate, gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_dequantize(int32_t device, const gatun_matrix *matrix, int64_t row0, int64_t rows,
                                             gatun_cuda_ptr out, int32_t out_type, int64_t ld,
                                             gatun_cuda_stream stream);
/* ids: int64 on the device. A row whose id is outside 0..N-1 is filled with NaN: the device cannot refuse. */
GATUN_API gatun_status gatun_cuda_embedding(int32_t device, const gatun_matrix *matrix, gatun_cuda_ptr ids,
                                            int64_t count, gatun_cuda_ptr out, int32_t out_type, int64_t ld,
                                            gatun_cuda_stream stream);
GATUN_API gatun_status gatun_cuda_quantize(int32_t device, const gatun_matrix *matrix, const gatun_quantize_rule *rule,
                                           gatun_cuda_ptr w, int32_t w_type, int64_t ldw, gatun_cuda_stream stream);

/* ---- packed weights and linear ---- */
GATUN_API gatun_status gatun_cuda_packed_size(const gatun_matrix *matrix, int64_t *size);
/* Lays the matrix out in `block` (256-byte aligned) and fills `packed`. The matrix is not needed once the stream has
 * passed. */
GATUN_API gatun_status gatun_cuda_pack(int32_t device, const gatun_matrix *matrix, gatun_cuda_ptr block,
                                       int64_t block_size, gatun_cuda_packed *packed, gatun_cuda_stream stream);
/* The inverse of pack, bit for bit, into the buffers of `out`, described as the packed matrix was. */
GATUN_API gatun_status gatun_cuda_unpack(int32_t device, const gatun_cuda_packed *packed, const gatun_matrix *out,
                                         gatun_cuda_stream stream);
/*
 * How gatun_cuda_linear multiplies m rows of x by this matrix once it is packed, and why so, in a static line: "narrow:
 * up to 16 rows of x, ...". Looks at the description only.
 *
 * device: -1 for a GPU like an H100, where there is none. plain: whether there is neither bias nor epilogue.
 */
GATUN_API gatun_status gatun_cuda_linear_way(const gatun_matrix *matrix, int32_t device, int64_t m, int32_t compute,
                                             int32_t plain, const char **way);
/* Bytes of 256-byte-aligned device scratch for up to m rows. */
GATUN_API gatun_status gatun_cuda_linear_workspace(const gatun_cuda_packed *packed, int64_t m, int32_t compute,
                                                   int64_t *size);
/* gatun_linear on the device; bias and x_multiplier are floats on the device or 0. */
GATUN_API gatun_status gatun_cuda_linear(int32_t device, const gatun_cuda_packed *packed, gatun_cuda_ptr x,
                                         int32_t x_type, int64_t ldx, int64_t m, gatun_cuda_ptr y, int32_t y_type,
                                         int64_t ldy, gatun_cuda_ptr bias, gatun_cuda_ptr x_multiplier,
                                         int32_t activation, int32_t combine, gatun_cuda_ptr other, int64_t ld_other,
                                         int32_t compute, gatun_cuda_ptr workspace, int64_t workspace_size,
                                         gatun_cuda_stream stream);

/*
 * The same for x that was quantized before: x_type I8 (compute I8) or F8_E4M3 (compute F8, F8_BLOCK). The scale of row
 * r and k is x_scales[r * scale_row_stride + (k / 128) * scale_col_stride], floats; scale_col_stride is 0 unless
 * compute is F8_BLOCK, both are 0 for one scale for all of x. The workspace is gatun_cuda_linear_workspace's.
 */
GATUN_API gatun_status gatun_cuda_linear_codes(int32_t device, const gatun_cuda_packed *packed, gatun_cuda_ptr x,
                                               int32_t x_type, int64_t ldx, int64_t m, gatun_cuda_ptr x_scales,
                                               int64_t scale_row_stride, int64_t scale_col_stride, gatun_cuda_ptr y,
                                               int32_t y_type, int64_t ldy, gatun_cuda_ptr bias, int32_t activation,
                                               int32_t combine, gatun_cuda_ptr other, int64_t ld_other, int32_t compute,
                                               gatun_cuda_ptr workspace, int64_t workspace_size,
                                               gatun_cuda_stream stream);

/* ---- static activations, and outliers ---- */
/* How calibrated layers round numbers: gatun_round_static's encoding, scale and reciprocal. */
typedef struct gatun_cuda_rounding {
    int32_t encoding; /* I8 or an 8-bit float */
    int32_t reciprocal;
    float scale; /* > 0 */
} gatun_cuda_rounding;

/* Bytes of 256-byte-aligned device scratch for m rows; y_rounding: null when y is not rounded. */
GATUN_API gatun_status gatun_cuda_linear_static_workspace(const gatun_cuda_packed *packed,
                                                          const gatun_cuda_rounding *x_rounding,
                                                          const gatun_cuda_rounding *y_rounding, int32_t y_type,
                                                          int64_t m, int64_t *size);
/*
 * gatun_cuda_linear of x that is multiplied by x_multiplier and rounded first, each in x_type, as gatun_round_static
 * does it; with y_rounding the sums plus bias are rounded to y_type and by it before activation and other. Integers by
 * weights that compute I8 takes, and e4m3 by those that F8 takes, are multiplied as codes (a row of x with NaN comes
 * out as NaN), all else as floats. The structs are host memory and read at the call.
 */
GATUN_API gatun_status gatun_cuda_linear_static(
    int32_t device, const gatun_cuda_packed *packed, const gatun_cuda_rounding *x_rounding,
    const gatun_cuda_rounding *y_rounding, gatun_cuda_ptr x, int32_t x_type, int64_t ldx, int64_t m, gatun_cuda_ptr y,
    int32_t y_type, int64_t ldy, gatun_cuda_ptr bias, gatun_cuda_ptr x_multiplier, int32_t activation, int32_t combine,
    gatun_cuda_ptr other, int64_t ld_other, gatun_cuda_ptr workspace, int64_t workspace_size, gatun_cuda_stream stream);

GATUN_API gatun_status gatun_cuda_linear_outliers_workspace(const gatun_cuda_packed *packed, int64_t m, int64_t *size);
/*
 * LLM.int8()'s product, for packed codes of I8 with one scale a row (GATUN_UNSUPPORTED for others). x is rounded to
 * binary16; columns with a magnitude of `threshold` or more in any of the m rows are multiplied in floats; the rest of
 * a row is rounded to x * (127 / absmax), absmax being its largest magnitude below the threshold, and multiplied in
 * integers. A row of x with NaN comes out as NaN.
 */
GATUN_API gatun_status gatun_cuda_linear_outliers(int32_t device, const gatun_cuda_packed *packed, float threshold,
                                                  gatun_cuda_ptr x, int32_t x_type, int64_t ldx, int64_t m,
                                                  gatun_cuda_ptr y, int32_t y_type, int64_t ldy, gatun_cuda_ptr bias,
                                                  gatun_cuda_ptr x_multiplier, int32_t activation, int32_t combine,
                                                  gatun_cuda_ptr other, int64_t ld_other, gatun_cuda_ptr workspace,
                                                  int64_t workspace_size, gatun_cuda_stream stream);

/* ---- grouped linear: runs of rows, each with a weight of its own (mixture of experts) ---- */
/* One of the weights: host memory, which is read at the call. */
typedef struct gatun_cuda_expert {
    const gatun_cuda_packed *packed;
    gatun_cuda_ptr bias;         /* N floats on the device or 0 */
    gatun_cuda_ptr x_multiplier; /* K floats on the device or 0 */
} gatun_cuda_expert;

/* Weights that are multiplied together: a host struct that the caller keeps, and one device block. The weights' own
 * blocks stay the caller's. */
typedef struct gatun_cuda_group {
    gatun_cuda_ptr block;
    int64_t n;
    int64_t k;
    int64_t count;
    int64_t tiles; /* these three: of all weights' tiles; see gatun_cuda_packed */
    int64_t steps;
    int64_t group;
    int32_t encoding;   /* of the first */
    int32_t form;       /* of all; as they came where they differ */
    int32_t codes;      /* bit c: all take compute type c */
    int32_t multiplies; /* whether one has a multiplier */
    int32_t affine;     /* whether one has zero points or offsets */
    int32_t scale_type; /* of the first; see gatun_cuda_packed */
    int32_t hopper;     /* bit c: kernels of this device for Hopper take all with compute type c */
} gatun_cuda_group;

GATUN_API gatun_status gatun_cuda_group_size(int64_t count, int64_t *size);
/* Fills `group` and `block` (256-byte aligned); all weights have the same N and K. */
GATUN_API gatun_status gatun_cuda_group_pack(int32_t device, const gatun_cuda_expert *experts, int64_t count,
                                             gatun_cuda_ptr block, int64_t block_size, gatun_cuda_group *group,
                                             gatun_cuda_stream stream);
/* Bytes of 256-byte-aligned device scratch for m rows. */
GATUN_API gatun_status gatun_cuda_linear_grouped_workspace(const gatun_cuda_group *group, int64_t m, int32_t compute,
                                                           int64_t *size);
/*
 * gatun_cuda_linear of rows offsets[e] .. offsets[e+1]-1 of x, y and other with expert e, for all of them, by one
 * launch that multiplies.
 *
 * offsets: count + 1 int64 on the device, from 0 on, none smaller than the one before, the last at most m; the device
 * cannot refuse others: it then leaves rows out or multiplies some twice. Rows that no expert has keep what y holds.
 */
GATUN_API gatun_status gatun_cuda_linear_grouped(int32_t device, const gatun_cuda_group *group, gatun_cuda_ptr offsets,
                                                 gatun_cuda_ptr x, int32_t x_type, int64_t ldx, int64_t m,
                                                 gatun_cuda_ptr y, int32_t y_type, int64_t ldy, int32_t activation,
                                                 int32_t combine, gatun_cuda_ptr other, int64_t ld_other,
                                                 int32_t compute, gatun_cuda_ptr workspace, int64_t workspace_size,
                                                 gatun_cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif
