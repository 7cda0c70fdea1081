/*
 * libgatun_cuda on any machine: it loads, answers GATUN_NO_DEVICE where there is no GPU, lists its kernels, and refuses
 * what cannot be before it touches a device.
 */
#include <stdio.h>
#include <string.h>

#include "gatun_cuda.h"

static int failures;

static void check(int ok, const char *what) {
    if (!ok) {
        printf("FAILED: %s (%s)\n", what, gatun_cuda_last_error());
        failures++;
    }
}

static gatun_matrix matrix(void *codes, int64_t codes_size, void *scales, int64_t scales_size) {
    gatun_matrix m;
    memset(&m, 0, sizeof m);
    m.n = 16;
    m.k = 64;
    m.encoding = GATUN_NF4;
    m.codes = codes;
    m.codes_size = codes_size;
    m.scale_type = GATUN_F32;
    m.scales = scales;
    m.scales_size = scales_size;
    m.block_rows = 1;
    m.block_cols = 64;
    m.scale_row_stride = 1;
    m.global_scale = 1.0f;
    m.arithmetic = m.result = GATUN_F32;
    return m;
}

int main(void) {
    check(gatun_cuda_abi_version() == GATUN_CUDA_ABI_VERSION, "the ABI version is the header's");
    int32_t driver = -1, runtime = -1;
    check(gatun_cuda_versions(&driver, &runtime) == GATUN_OK && runtime >= 12000,
          "the versions are known without a driver");

    int32_t devices = -1;
    gatun_status status = gatun_cuda_device_count(&devices);
    if (status == GATUN_OK) {
        printf("%d devices\n", devices);
        check(devices > 0, "a count of devices is above zero");
    } else {
        check(status == GATUN_NO_DEVICE && devices == 0, "without a GPU the answer is GATUN_NO_DEVICE");
        check(strstr(gatun_cuda_last_error(), "device") != NULL, "and says so");
        gatun_cuda_ptr p = 1;
        check(gatun_cuda_allocate(0, 16, 0, &p) == GATUN_NO_DEVICE && p == 0, "memory needs a device");
        gatun_cuda_stream s;
        check(gatun_cuda_stream_create(0, &s) == GATUN_NO_DEVICE, "a stream needs a device");
    }
    check(gatun_cuda_allocate(1 << 20, 16, 0, &(gatun_cuda_ptr){0}) == GATUN_NO_DEVICE, "no such device");

    int32_t count = gatun_cuda_kernel_count(), linear = 0, codes = 0;
    for (int32_t i = 0; i < count; i++) {
        gatun_cuda_kernel k;
        check(gatun_cuda_kernel_at(i, &k) == GATUN_OK && strstr(k.name, "__sm80") != NULL,
              "each row of the table has a name");
        linear += k.operation == GATUN_OP_LINEAR;
        codes += strcmp(k.name, "linear_i8_i8__sm80") == 0 || strcmp(k.name, "linear_f8_f8_e4m3__sm80") == 0 ||
                 strcmp(k.name, "linear_f8_block_f8_e4m3__sm80") == 0;
    }
    check(linear > 0, "the table lists linear");
    check(codes == 3, "and products of 8-bit codes");
    gatun_cuda_kernel none;
    check(gatun_cuda_kernel_at(count, &none) == GATUN_INVALID_ARGUMENT, "a row past the table's end is refused");
    check(gatun_cuda_kernel_at(-1, &none) == GATUN_INVALID_ARGUMENT, "a negative row is refused");

    /* Addresses that are never followed: sizes are checked first. */
    char *somewhere = (char *)0x10000;
    int64_t size = 0;
    gatun_matrix m = matrix(somewhere, 512, somewhere, 64);
    check(gatun_cuda_packed_size(&m, &size) == GATUN_OK && size > 0, "a matrix that holds together has a packed size");
    m = matrix(somewhere, 511, somewhere, 64);
    check(gatun_cuda_packed_size(&m, &size) == GATUN_BUFFER_TOO_SMALL, "codes one byte short");
    m = matrix(somewhere, 512, somewhere, 63);
    check(gatun_cuda_packed_size(&m, &size) == GATUN_BUFFER_TOO_SMALL, "scales one byte short");
    m = matrix(somewhere, 512, somewhere, 64);
    m.n = INT64_MAX / 8;
    check(gatun_cuda_packed_size(&m, &size) != GATUN_OK, "a product that overflows");
    m = matrix(somewhere, 512, somewhere, 64);
    m.rotation = 48;
    check(gatun_cuda_packed_size(&m, &size) == GATUN_INVALID_ARGUMENT, "a rotation that is no power of four");
    m = matrix(somewhere, 512, somewhere, 64);
    m.encoding = 9999;
    check(gatun_cuda_packed_size(&m, &size) == GATUN_INVALID_ARGUMENT, "an unknown encoding");
    check(gatun_cuda_packed_size(NULL, &size) == GATUN_INVALID_ARGUMENT, "no matrix");
    check(gatun_cuda_linear_codes(0, NULL, 0, GATUN_I8, 0, 1, 0, 1, 0, 0, GATUN_F32, 0, 0, 0, 0, 0, 0, GATUN_COMPUTE_I8,
                                  0, 0, 0) == GATUN_INVALID_ARGUMENT,
          "codes of nothing");

    printf(failures ? "%d failures\n" : "ok\n", failures);
    return failures != 0;
}
