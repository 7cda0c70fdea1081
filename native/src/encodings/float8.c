/*
 * The 8-bit floats. Encoding rounds to nearest even, subnormals included; what overflows becomes what PyTorch's cast
 * makes of it.
 */
#include "encodings/numbers.h"

typedef struct format {
    int32_t mantissa; /* bits */
    int32_t bias;
    int32_t largest; /* magnitude code of the largest finite number */
    bool fnuz;       /* no infinities, no negative zero, NaN is 0x80 */
    float max;
} format;

static const format *format_of(int32_t encoding) {
    static const format e4m3 = {3, 7, 0x7E, false, 448};
    static const format e5m2 = {2, 15, 0x7B, false, 57344};
    static const format e4m3fnuz = {3, 8, 0x7F, true, 240};
    static const format e5m2fnuz = {2, 16, 0x7F, true, 57344};
    switch (encoding) {
    case GATUN_F8_E5M2:
        return &e5m2;
    case GATUN_F8_E4M3FNUZ:
        return &e4m3fnuz;
    case GATUN_F8_E5M2FNUZ:
        return &e5m2fnuz;
    default:
        return &e4m3;
    }
}

bool gatun_is_f8(int32_t encoding) { return encoding >= GATUN_F8_E4M3 && encoding <= GATUN_F8_E8M0; }

float gatun_f8_max(int32_t encoding) { return encoding == GATUN_F8_E8M0 ? 0x1p127f : format_of(encoding)->max; }

float gatun_f8_decode(int32_t encoding, int32_t code) {
    if (encoding == GATUN_F8_E8M0) {
        return code == 255 ? NAN : ldexpf(1.0f, code - 127);
    }
    const format *f = format_of(encoding);
    int32_t magnitude = code & 0x7F;
    bool negative = (code & 0x80) != 0;
    if (f->fnuz ? code == 0x80 : magnitude > f->largest) {
        return encoding == GATUN_F8_E5M2 && magnitude == 0x7C ? (negative ? -INFINITY : INFINITY) : NAN;
    }
    int32_t exponent = magnitude >> f->mantissa;
    int32_t fraction = magnitude & ((1 << f->mantissa) - 1);
    /* A normal number has a one before its fraction; a subnormal has the exponent of the smallest normal. */
    int32_t significand = exponent == 0 ? fraction : fraction | 1 << f->mantissa;
    float value = ldexpf((float)significand, (exponent > 1 ? exponent : 1) - f->bias - f->mantissa);
    return negative ? -value : value;
}

/* The exponent rounded to nearest, as PyTorch's cast does; the sign is ignored. */
static uint8_t encode_e8m0(uint32_t bits) {
    uint32_t exponent = bits >> 23 & 0xFF;
    if (exponent == 0xFF) {
        return 0xFF;
    }
    bool half = (bits & 0x400000) != 0;
    bool more = (bits & 0x3FFFFF) != 0;
    return (uint8_t)(half && (more || exponent > 0) ? exponent + 1 : exponent);
}

uint8_t gatun_f8_encode(int32_t encoding, float value) {
    uint32_t bits = gatun_float_bits(value);
    if (encoding == GATUN_F8_E8M0) {
        return encode_e8m0(bits);
    }
    const format *f = format_of(encoding);
    int32_t sign = (int32_t)(bits >> 24 & 0x80);
    uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) {
        return (uint8_t)(f->fnuz ? 0x80 : sign | 0x7F);
    }
    int32_t code = f->largest + 1;
    if (magnitude < 0x7F800000) {
        int32_t exponent = (int32_t)(magnitude >> 23) - 127;
        if (exponent < 1 - f->bias) {
            exponent = 1 - f->bias;
        }
        /* In units of the last place the number is an integer after rounding; a carry moves on into the exponent. */
        int32_t units = (int32_t)lrint(ldexp((double)gatun_bits_float(magnitude), f->mantissa - exponent));
        int32_t rounded = ((exponent + f->bias - 1) << f->mantissa) + units;
        code = rounded < code ? rounded : code;
    }
    if (code > f->largest) {
        return (uint8_t)(f->fnuz ? 0x80 : sign | code);
    }
    return (uint8_t)(f->fnuz && code == 0 ? 0 : sign | code);
}
