/* Status codes, the calling thread's last error, and versions. */
#include <stdarg.h>
#include <stdio.h>

#include "gatun_internal.h"

static _Thread_local char last_error[512];

gatun_status gatun_fail(gatun_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

const char *gatun_last_error(void) { return last_error; }

const char *gatun_status_string(gatun_status status) {
    static const char *const names[] = {
        "ok",
        "invalid argument",
        "unsupported",
        "instruction set missing",
        "buffer too small",
        "corrupt packed weight",
        "out of memory",
        "no device",
        "internal error",
    };
    if (status < 0 || status >= (gatun_status)(sizeof names / sizeof names[0])) {
        return "unknown status";
    }
    return names[status];
}

int32_t gatun_abi_version(void) { return GATUN_ABI_VERSION; }

const char *gatun_version(void) { return GATUN_VERSION; }
