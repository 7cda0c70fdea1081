/* The SHA-256 of the gatun_cuda.h that this library was built from, in hexadecimal; set by CMake. Not part of the ABI:
 * the bindings' drift test looks it up by name. */
#include "gatun_cuda.h"

GATUN_API extern const char gatun_cuda_header_sha256[];
const char gatun_cuda_header_sha256[] = GATUN_CUDA_HEADER_SHA256;
