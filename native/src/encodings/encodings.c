/* Names and widths of the encodings, and arrays of numbers of any of them. */
#include "encodings/list.h"
#include "encodings/numbers.h"

#define ENCODING_NAME(ENCODING, name, bits, unused)                                                                    \
    case GATUN_##ENCODING:                                                                                             \
        return #name;
#define ENCODING_BITS(ENCODING, name, bits, unused)                                                                    \
    case GATUN_##ENCODING:                                                                                             \
        return bits;

const char *gatun_encoding_name(int32_t encoding) {
    switch (encoding) {
        GATUN_WEIGHT_ENCODINGS(ENCODING_NAME, 0)
    case GATUN_F8_E8M0:
        return "f8_e8m0";
    default:
        return NULL;
    }
}

int32_t gatun_encoding_bits(int32_t encoding) {
    switch (encoding) {
        GATUN_WEIGHT_ENCODINGS(ENCODING_BITS, 0)
    case GATUN_F8_E8M0:
        return 8;
    default:
        return 0;
    }
}

bool gatun_is_plain(int32_t encoding) {
    return encoding == GATUN_F32 || encoding == GATUN_F16 || encoding == GATUN_BF16;
}

bool gatun_is_gguf(int32_t encoding) { return encoding >= GATUN_Q4_0 && gatun_encoding_name(encoding) != NULL; }

int64_t gatun_number_size(int32_t type) {
    int32_t bits = gatun_encoding_bits(type);
    return bits % 8 == 0 ? bits / 8 : 0;
}

float gatun_number_get(int32_t type, const void *data, int64_t index) {
    if (gatun_is_plain(type)) {
        return gatun_plain_get(type, data, index);
    }
    const float *values = gatun_codebook(type);
    return values[((const uint8_t *)data)[index]];
}
