/*
 * pack and unpack are inverses, bit for bit, for every encoding, code order, granularity and extra; and what a packed
 * block decodes to is what the matrix dequantizes to.
 */
#include "matrices.h"

static void check_bytes(const char *what, const void *a, const void *b, int64_t size) {
    CHECK(size == 0 || memcmp(a, b, (size_t)size) == 0, "%s differ", what);
}

static int64_t tried;

static void round_trip(const gatun_matrix *m) {
    int64_t size;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(m, &size));
    void *packed = buffer(size, 0xA5);
    guarded parts[GATUN_PARTS];
    gatun_matrix source = guard_matrix(m, tried % 2 == 1, parts);
    CHECK_STATUS(GATUN_OK, gatun_pack(&source, packed, size, 2));
    CHECK_STATUS(GATUN_OK, gatun_packed_check(packed, size));
    CHECK_STATUS(GATUN_OK, gatun_packed_is(m, packed, size));
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        unguard(&parts[part]);
    }
    gatun_matrix out = empty_like(m);
    CHECK_STATUS(GATUN_OK, gatun_unpack(packed, size, &out));
    check_bytes("codes", m->codes, out.codes, m->codes_size);
    check_bytes("scales", m->scales, out.scales, m->scales_size);
    check_bytes("zeros", m->zeros, out.zeros, m->zeros_size);
    check_bytes("offsets", m->offsets, out.offsets, m->offsets_size);
    check_bytes("nested codebook", m->nested_codebook, out.nested_codebook, m->nested_codebook != NULL ? 1024 : 0);
    check_bytes("nested scales", m->nested_scales, out.nested_scales, m->nested_scales_size);
    check_bytes("codebook", m->codebook, out.codebook, m->codebook_size);
    check_bytes("column groups", m->column_groups, out.column_groups, m->column_groups_size);
    check_bytes("row scales", m->row_scales, out.row_scales, m->row_scales_size);
    float *a = (float *)buffer(4 * m->k, 0), *b = (float *)buffer(4 * m->k, 0);
    for (int64_t row = 0; row < m->n; row++) {
        gatun_row_values(m, row, 0, m->k, false, a);
        gatun_packed_values((const gatun_packed *)packed, row, 0, m->k, false, b);
        check_bytes("values", a, b, 4 * m->k);
        gatun_row_values(&out, row, 0, m->k, false, b);
        check_bytes("unpacked values", a, b, 4 * m->k);
    }
    free(a);
    free(b);
    free_matrix(&out);
    free(packed);
    tried++;
}

static void try_matrix(random_state *r, int32_t encoding, int32_t order, int64_t n, int64_t k, int32_t cut,
                       int64_t group, int32_t with, int32_t scale_type, int32_t arithmetic) {
    gatun_matrix m;
    if (random_matrix(r, encoding, order, n, k, cut, group, with, scale_type, arithmetic, &m)) {
        round_trip(&m);
        free_matrix(&m);
    }
}

static void unpack_refuses_another_description(void) {
    random_state r = {7};
    gatun_matrix m;
    CHECK(random_matrix(&r, GATUN_NF4, 0, 40, 64, FLAT, 64, 0, GATUN_F32, GATUN_F32, &m), "nf4");
    int64_t size;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    void *packed = buffer(size, 0);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, packed, size, 1));
    gatun_matrix other = m;
    other.encoding = GATUN_FP4;
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_unpack(packed, size, &other));
    other = m;
    other.codes_size--;
    CHECK_STATUS(GATUN_BUFFER_TOO_SMALL, gatun_unpack(packed, size, &other));
    CHECK_STATUS(GATUN_BUFFER_TOO_SMALL, gatun_pack(&m, packed, size - 1, 1));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_pack(&m, (uint8_t *)packed + 1, size, 1));
    free(packed);
    free_matrix(&m);
}

static void a_block_is_its_own_matrixs_only(void) {
    random_state r = {11};
    gatun_matrix m;
    CHECK(random_matrix(&r, GATUN_NF4, 0, 40, 64, FLAT, 64, 0, GATUN_F32, GATUN_F32, &m), "nf4");
    int64_t size;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    void *packed = NULL;
    CHECK_STATUS(GATUN_OK, gatun_memory_allocate(size, &packed));
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, packed, size, 1));
    CHECK_STATUS(GATUN_OK, gatun_packed_is(&m, packed, size));
    gatun_matrix other = m;
    other.encoding = GATUN_FP4;
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_packed_is(&other, packed, size));
    CHECK_STATUS(GATUN_BUFFER_TOO_SMALL, gatun_packed_is(&m, packed, size - 1));
    CHECK_STATUS(GATUN_OK, gatun_memory_free(packed, size));
    free_matrix(&m);
}

/* Of weights that are not small: the header, the table and panels that are not full are no part of the promise. */
static void packed_form_is_hardly_larger(void) {
    random_state r = {13};
    for (int32_t e = 0; e < WEIGHT_ENCODINGS; e++) {
        static const struct cut {
            int32_t scale_type, with, group;
        } cuts[] = {{GATUN_F32, 0, 64},     {GATUN_F16, 0, 32},           {GATUN_F8_E4M3, 0, 16},
                    {GATUN_F8_E8M0, 0, 32}, {GATUN_F16, WITH_ZEROS, 128}, {GATUN_F8_E8M0, 0, 1 << 20}};
        for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
            gatun_matrix m;
            const int32_t bits = gatun_encoding_bits(weight_encodings[e]);
            const int32_t cut = bits == 0 ? PER_TENSOR : PER_GROUP; /* blocks are cut already */
            if ((bits != 0 && bits != 4 && bits < 8) ||             /* the others are made wider */
                !random_matrix(&r, weight_encodings[e], 0, 256, 2048, cut, cuts[c].group, cuts[c].with,
                               cuts[c].scale_type, GATUN_F32, &m)) {
                continue;
            }
            int64_t size, source = m.codes_size + m.scales_size + m.zeros_size;
            CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
            CHECK(size - 2048 <= source + source * 3 / 100, "%s with scales of type %d for %d: %lld bytes of %lld",
                  gatun_encoding_name(m.encoding), m.scale_type, cuts[c].group, (long long)size, (long long)source);
            free_matrix(&m);
        }
    }
}

/* Every byte of it can be written, from a small piece to several large pages, and none is left over. */
static void memory_is_zeros_and_goes_back(void) {
    for (int64_t size = 1; size < (9 << 20); size = size * 5 + 3) {
        void *memory = NULL;
        CHECK_STATUS(GATUN_OK, gatun_memory_allocate(size, &memory));
        uint8_t *bytes = (uint8_t *)memory;
        CHECK((uintptr_t)bytes % 64 == 0, "alignment of %lld bytes", (long long)size);
        CHECK(bytes[0] == 0 && bytes[size - 1] == 0, "zeros in %lld bytes", (long long)size);
        memset(bytes, 1, (size_t)size);
        CHECK_STATUS(GATUN_OK, gatun_memory_free(memory, size));
    }
    void *memory = NULL;
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_memory_allocate(0, &memory));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_memory_allocate(8, NULL));
    CHECK_STATUS(GATUN_OUT_OF_MEMORY, gatun_memory_allocate(INT64_C(1) << 60, &memory));
    CHECK(memory == NULL, "memory that is not there");
}

int main(void) {
    random_state r = {1};
    static const int64_t shapes[][2] = {{0, 8},   {8, 0},   {1, 1},   {1, 33},   {33, 4},
                                        {40, 96}, {7, 130}, {96, 64}, {64, 256}, {64, 520}};
    static const int64_t long_groups[] = {640, 2048}; /* the second group of a row is mostly padding */
    static const int64_t groups[] = {4, 12, 48, 260, 272};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (int32_t e = 0; e < WEIGHT_ENCODINGS; e++) {
            for (int32_t order = GATUN_ORDER_LOW_FIRST; order <= GATUN_ORDER_TILES_8X16; order++) {
                for (int32_t cut = 0; cut < CUTS; cut++) {
                    try_matrix(&r, weight_encodings[e], order, shapes[s][0], shapes[s][1], cut, 32, 0, GATUN_F32,
                               GATUN_F32);
                }
            }
            for (int32_t with = 1; with <= WITH_THEN_GLOBAL; with <<= 1) {
                try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], PER_GROUP, 16, with, GATUN_F32,
                           GATUN_F32);
            }
            try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], FLAT, 64, WITH_NESTED, 0, GATUN_F32);
            try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], PER_GROUP, 16, 0, GATUN_F8_E4M3,
                       GATUN_BF16);
            try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], PER_GROUP, 32, WITH_ZEROS | WITH_OFFSETS,
                       GATUN_F16, GATUN_F16);
            try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], PER_GROUP, 7, 0, GATUN_BF16, GATUN_BF16);
            /* Groups that are no whole runs of what is turned at once, beside each other and longer than a piece. */
            for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
                try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], PER_GROUP, groups[g], 0,
                           GATUN_F8_E8M0, GATUN_F32);
            }
            try_matrix(&r, weight_encodings[e], 0, 33, long_groups[s % 2] + 60, PER_GROUP, long_groups[s % 2], 0,
                       GATUN_F32, GATUN_F32);
            try_matrix(&r, weight_encodings[e], 0, shapes[s][0], shapes[s][1], PER_TENSOR, 0, 0, GATUN_NONE, GATUN_F32);
        }
    }
    CHECK(tried > 1500, "only %lld matrices were tried", (long long)tried);
    unpack_refuses_another_description();
    a_block_is_its_own_matrixs_only();
    packed_form_is_hardly_larger();
    memory_is_zeros_and_goes_back();
    return finish();
}
