/* convert_*__scalar: dst[i] = src[i] between plain numbers and 8-bit floats. */
#include "cpu/kernels.h"
#include "encodings/numbers.h"

void gatun_convert__scalar(const void *src, int32_t src_type, void *dst, int32_t dst_type, int64_t count,
                           bool saturate) {
    if (!gatun_is_f8(dst_type)) {
        for (int64_t i = 0; i < count; i++) {
            gatun_plain_put(dst_type, dst, i, gatun_number_get(src_type, src, i));
        }
        return;
    }
    float max = gatun_f8_max(dst_type);
    for (int64_t i = 0; i < count; i++) {
        float v = gatun_number_get(src_type, src, i);
        if (saturate) { /* NaN stays NaN */
            v = v > max ? max : v < -max ? -max : v;
        }
        ((uint8_t *)dst)[i] = gatun_f8_encode(dst_type, v);
    }
}
