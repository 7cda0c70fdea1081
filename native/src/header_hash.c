/* The SHA-256 of the gatun.h that this library was built from, in hexadecimal; set by CMake. Not part of the ABI: the
 * bindings' drift test looks it up by name. */
#include "gatun.h"

GATUN_API extern const char gatun_header_sha256[];
const char gatun_header_sha256[] = GATUN_HEADER_SHA256;
