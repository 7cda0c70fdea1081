/* What a call costs from C: the other side of the comparison with a call from Java. */
#include <stddef.h>

#include "gatun_cuda.h"
#include "rounds.h"

double gatun_probe_call(int32_t (*function)(void), int64_t count) {
    int32_t (*volatile hidden)(void) = function; /* or the compiler might call once */
    double start = now_seconds();
    for (int64_t i = 0; i < count; i++) {
        hidden();
    }
    return (now_seconds() - start) * 1e9;
}

double gatun_probe_linear(const void *function, int64_t count, const void *packed, int64_t packed_size, const void *x,
                          int64_t k, int64_t m, void *y, int64_t n, int32_t compute, int32_t threads, void *workspace,
                          int64_t workspace_size) {
    __typeof__(&gatun_linear) linear = (__typeof__(&gatun_linear))function;
    double start = now_seconds();
    for (int64_t i = 0; i < count; i++) {
        if (linear(packed, packed_size, x, GATUN_F32, k, m, y, GATUN_F32, n, NULL, NULL, GATUN_ACTIVATION_NONE,
                   GATUN_COMBINE_NONE, NULL, 0, compute, GATUN_ISA_BEST, threads, workspace,
                   workspace_size) != GATUN_OK) {
            return -1;
        }
    }
    return (now_seconds() - start) * 1e9;
}

double gatun_probe_cuda_linear(const void *function, int64_t count, int32_t device, const void *packed, uint64_t x,
                               int64_t k, int64_t m, uint64_t y, int64_t n, int32_t compute, uint64_t workspace,
                               int64_t workspace_size, uint64_t stream) {
    __typeof__(&gatun_cuda_linear) linear = (__typeof__(&gatun_cuda_linear))function;
    double start = now_seconds();
    for (int64_t i = 0; i < count; i++) {
        if (linear(device, packed, x, GATUN_F32, k, m, y, GATUN_F32, n, 0, 0, GATUN_ACTIVATION_NONE, GATUN_COMBINE_NONE,
                   0, 0, compute, workspace, workspace_size, stream) != GATUN_OK) {
            return -1;
        }
    }
    return (now_seconds() - start) * 1e9;
}
