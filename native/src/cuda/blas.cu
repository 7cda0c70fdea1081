/*
 * Dense products through cuBLASLt, which is opened at run time when the machine has it: nothing here needs its headers
 * or its library to build. The few declarations below are its documented C interface (version 12 and 13).
 */
#include <dlfcn.h>

#include <cstdio>

#include <mutex>

#include "linear.cuh"

namespace gatun {

enum { BLAS_COMPUTE_32F = 68, BLAS_R_32F = 0, BLAS_R_16F = 2, BLAS_R_16BF = 14, BLAS_R_8F_E4M3 = 28 };
enum {
    BLAS_DESC_TRANSA = 3,
    BLAS_DESC_A_SCALE = 17,
    BLAS_DESC_B_SCALE = 18,
    BLAS_DESC_A_SCALE_MODE = 31,
    BLAS_DESC_B_SCALE_MODE = 32,
    BLAS_SCALE_ROWS = 3, /* a float a row of A^T, or of B^T */
    BLAS_PREF_MAX_WORKSPACE = 1
};

struct Heuristic {
    uint64_t algo[8];
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

struct Blas {
    int (*create)(void **);
    int (*desc_create)(void **, int, int);
    int (*desc_destroy)(void *);
    int (*desc_set)(void *, int, const void *, size_t);
    int (*layout_create)(void **, int, uint64_t, uint64_t, int64_t);
    int (*layout_destroy)(void *);
    int (*pref_create)(void **);
    int (*pref_destroy)(void *);
    int (*pref_set)(void *, int, const void *, size_t);
    int (*heuristic)(void *, void *, void *, void *, void *, void *, void *, int, Heuristic *, int *);
    int (*matmul)(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *,
                  void *, void *, void *, const void *, void *, size_t, cudaStream_t);
    char why[256];
    bool there = false;

    template <typename F> bool find(void *library, F *&function, const char *name) {
        function = (F *)dlsym(library, name);
        if (!function)
            snprintf(why, sizeof why, "cuBLASLt lacks %s", name);
        return function;
    }

    Blas() {
        void *library = nullptr;
        for (const char *name : {"libcublasLt.so.13", "libcublasLt.so.12"})
            if (!library)
                library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            snprintf(why, sizeof why, "looked for libcublasLt.so.13 and libcublasLt.so.12: %s", dlerror());
            return;
        }
        there = find(library, create, "cublasLtCreate") && find(library, desc_create, "cublasLtMatmulDescCreate") &&
                find(library, desc_destroy, "cublasLtMatmulDescDestroy") &&
                find(library, desc_set, "cublasLtMatmulDescSetAttribute") &&
                find(library, layout_create, "cublasLtMatrixLayoutCreate") &&
                find(library, layout_destroy, "cublasLtMatrixLayoutDestroy") &&
                find(library, pref_create, "cublasLtMatmulPreferenceCreate") &&
                find(library, pref_destroy, "cublasLtMatmulPreferenceDestroy") &&
                find(library, pref_set, "cublasLtMatmulPreferenceSetAttribute") &&
                find(library, heuristic, "cublasLtMatmulAlgoGetHeuristic") && find(library, matmul, "cublasLtMatmul");
    }
};

static const Blas &blas() {
    static const Blas opened;
    return opened;
}

/* One handle a device, made once; a handle may be used by any thread. */
static void *handle_of(int32_t device) {
    static std::mutex mutex;
    static void *handles[64];
    if (device < 0 || device >= 64)
        return nullptr;
    std::lock_guard<std::mutex> lock(mutex);
    if (!handles[device] && blas().create(&handles[device]) != 0)
        handles[device] = nullptr;
    return handles[device];
}

/* Everything that one product needs of the library, freed at the end. */
struct Product {
    void *desc = nullptr, *a = nullptr, *b = nullptr, *c = nullptr, *preference = nullptr;

    ~Product() {
        if (desc)
            blas().desc_destroy(desc);
        for (void *layout : {a, b, c})
            if (layout)
                blas().layout_destroy(layout);
        if (preference)
            blas().pref_destroy(preference);
    }
};

gatun_status blas_product(int32_t device, const DenseProduct &d, void *workspace, int64_t workspace_size,
                          cudaStream_t stream) {
    void *handle = handle_of(device);
    if (!handle)
        return gatun_cuda_fail(GATUN_INTERNAL, "linear: cuBLASLt gave no handle for device %d", device);
    const int y_type = d.y_type == GATUN_F32 ? BLAS_R_32F : d.y_type == GATUN_F16 ? BLAS_R_16F : BLAS_R_16BF;
    const int type = d.e4m3 ? BLAS_R_8F_E4M3 : BLAS_R_16BF;
    const uint64_t m = (uint64_t)d.m, n = (uint64_t)d.n, k = (uint64_t)d.k;
    /* Column-major there: y^T [n, m] = W [k, n]^T * x^T [k, m]. */
    Product p;
    const int transposed = 1, rows = BLAS_SCALE_ROWS;
    size_t limit = (size_t)workspace_size;
    Heuristic found;
    int count = 0;
    const Blas &lt = blas();
    auto set = [&](int what, const void *value, size_t size) { return lt.desc_set(p.desc, what, value, size) == 0; };
    bool ok = lt.desc_create(&p.desc, BLAS_COMPUTE_32F, BLAS_R_32F) == 0 &&
              set(BLAS_DESC_TRANSA, &transposed, sizeof transposed);
    if (d.e4m3)
        ok = ok && set(BLAS_DESC_A_SCALE_MODE, &rows, sizeof rows) && set(BLAS_DESC_B_SCALE_MODE, &rows, sizeof rows) &&
             set(BLAS_DESC_A_SCALE, &d.w_scales, sizeof d.w_scales) &&
             set(BLAS_DESC_B_SCALE, &d.x_scales, sizeof d.x_scales);
    ok = ok && lt.layout_create(&p.a, type, k, n, d.ldw) == 0 && lt.layout_create(&p.b, type, k, m, d.ldx) == 0 &&
         lt.layout_create(&p.c, y_type, n, m, d.ldy) == 0 && lt.pref_create(&p.preference) == 0 &&
         lt.pref_set(p.preference, BLAS_PREF_MAX_WORKSPACE, &limit, sizeof limit) == 0 &&
         lt.heuristic(handle, p.desc, p.a, p.b, p.c, p.c, p.preference, 1, &found, &count) == 0 && count > 0;
    if (!ok)
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "linear: cuBLASLt has no kernel for %lld x %lld x %lld",
                               (long long)d.m, (long long)d.n, (long long)d.k);
    const float one = 1.0f, zero = 0.0f;
    int status = lt.matmul(handle, p.desc, &one, d.w, p.a, d.x, p.b, &zero, d.y, p.c, d.y, p.c, found.algo, workspace,
                           limit, stream);
    return status == 0 ? GATUN_OK : gatun_cuda_fail(GATUN_INTERNAL, "linear: cuBLASLt answered %d", status);
}

} // namespace gatun

extern "C" gatun_status gatun_cuda_blas_check(void) {
    if (gatun::blas().there)
        return GATUN_OK;
    return gatun_cuda_fail(GATUN_UNSUPPORTED, "no cuBLASLt: %s", gatun::blas().why);
}
