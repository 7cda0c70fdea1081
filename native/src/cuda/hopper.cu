/*
 * Descriptions of matrices for Hopper's copy engine. The driver makes them; its function is looked up when it is first
 * needed, so that the library needs no libcuda to load.
 */
#include "hopper.cuh"

namespace gatun {

using Encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                            const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                            CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static Encode encode() {
    static const Encode found = [] {
        void *function = nullptr;
        cudaDriverEntryPointQueryResult result;
        cudaError_t error =
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
        return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? (Encode)function : nullptr;
    }();
    return found;
}

gatun_status tensor_map(CUtensorMap *map, CUtensorMapDataType type, const void *base, int64_t columns, int64_t rows,
                        int64_t row_bytes, int box_rows) {
    if (!encode())
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "linear: the driver has no cuTensorMapEncodeTiled");
    const int size = type == CU_TENSOR_MAP_DATA_TYPE_UINT8 ? 1 : 2;
    const cuuint64_t shape[2] = {(cuuint64_t)columns, (cuuint64_t)rows}, strides[1] = {(cuuint64_t)row_bytes};
    const cuuint32_t box[2] = {(cuuint32_t)(128 / size), (cuuint32_t)box_rows}, step[2] = {1, 1};
    CUresult result =
        encode()(map, type, 2, (void *)base, shape, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return gatun_cuda_fail(GATUN_INTERNAL,
                               "linear: no copies of %lld x %lld, rows %lld bytes apart (CUDA driver error %d)",
                               (long long)rows, (long long)columns, (long long)row_bytes, (int)result);
    return GATUN_OK;
}

} // namespace gatun
