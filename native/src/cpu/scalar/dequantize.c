/* dequantize_*__scalar: out[i] = value(row, first + i), the definition's loop, a piece at a time. */
#include "cpu/kernels.h"
#include "encodings/numbers.h"

enum { PIECE = 1024 };

void gatun_dequantize__scalar(const gatun_matrix *matrix, int64_t row, int64_t first, int64_t count, void *out,
                              int32_t out_type) {
    float values[PIECE];
    for (int64_t done = 0; done < count; done += PIECE) {
        int64_t take = count - done < PIECE ? count - done : PIECE;
        gatun_row_values(matrix, row, first + done, take, false, values);
        for (int64_t i = 0; i < take; i++) {
            gatun_plain_put(out_type, out, done + i, values[i]);
        }
    }
}
