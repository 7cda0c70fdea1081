/*
 * What the translation units of libgatun_cuda share. Nothing here is exported.
 */
#ifndef GATUN_CUDA_INTERNAL_H
#define GATUN_CUDA_INTERNAL_H

#include <cuda_runtime.h>
#include <stdint.h>

#include <initializer_list>

#include "gatun_cuda.h"

/* Records one line for the calling thread and returns `status`. */
gatun_status gatun_cuda_fail(gatun_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Turns a CUDA error into a status: no device or driver, out of memory, anything else. */
gatun_status gatun_cuda_status(cudaError_t error, const char *what);
/* Makes the device current for the calling thread. */
gatun_status gatun_cuda_use(int32_t device);
/* The error of the launch just made, and which kernel of the table it was. */
gatun_status gatun_cuda_launched(int32_t operation, int32_t compute, int32_t encoding, const char *what);

#define GATUN_CUDA_TRY(call)                                                                                           \
    do {                                                                                                               \
        gatun_status gatun_status_ = (call);                                                                           \
        if (gatun_status_ != GATUN_OK)                                                                                 \
            return gatun_status_;                                                                                      \
    } while (0)

static inline cudaStream_t gatun_cuda_raw(gatun_cuda_stream stream) { return (cudaStream_t)(uintptr_t)stream; }

/* Numbers of a plain type, int64 (GATUN_CUDA_INT64) or bytes at a device address, or 0. */
enum { GATUN_CUDA_INT64 = -1 };
struct gatun_cuda_operand {
    const char *name;
    gatun_cuda_ptr at;
    int32_t type;
};
/* Refuses addresses that are not aligned for what lies there: a kernel that met one would end the device's context. */
gatun_status gatun_cuda_check_aligned(const char *what, std::initializer_list<gatun_cuda_operand> operands);

/* Sizes, alignments and enumerations of a matrix; what the pointers hold cannot be checked here. */
gatun_status gatun_cuda_matrix_check(const gatun_matrix *matrix, bool writes);

/* ---- the packed form on the device ----
 *
 * CODES4: tiles of 16 rows x all K, cut into steps of 64 k. A step is what the A operands of four tensor-core products
 * m16n8k16 need, in the order in which the lanes hold them: lane l = 4*g + t owns, for product s = 0..3, the pairs
 * (row g, k 2t), (row g+8, k 2t), (row g, k 2t+8), (row g+8, k 2t+8), each pair two consecutive k. 512 bytes; lane l's
 * 16 bytes are 4 products x 4 pairs, a pair a byte, first k in the low nibble.
 *
 * CODES8: rows of bytes, 16 * tiles of 64 * steps: also what dense products of 8-bit operands read.
 *
 * Scales (and zero points and offsets) of both lie as [tile][group][16 slots], slot 2*g + h for row g + 8*h, so that
 * one load brings what a lane needs. Rows and columns beyond the matrix have code 0 and scale 0.
 *
 * SOURCE: the matrix's own parts, one after the other, each 256-byte aligned.
 */
enum { GATUN_CUDA_FORM_CODES4 = 1, GATUN_CUDA_FORM_CODES8 = 2, GATUN_CUDA_FORM_SOURCE = 3 };
enum { GATUN_CUDA_TILE_ROWS = 16, GATUN_CUDA_STEP_K = 64, GATUN_CUDA_ALIGNMENT = 256, GATUN_CUDA_SLACK = 8192 };

#endif
