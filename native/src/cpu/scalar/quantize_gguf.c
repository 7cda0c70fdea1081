/* quantize_<block>__scalar: GGUF blocks block0 .. block1-1, in row-major order. */
#include "cpu/kernels.h"
#include "encodings/codes.h"

void gatun_quantize_gguf__scalar(const gatun_quantize_task *task) {
    const gatun_matrix *m = task->matrix;
    const gatun_block *block = gatun_gguf_block(m->encoding);
    int64_t across = m->k / block->elements;
    float x[GATUN_BLOCK_MAX];
    for (int64_t i = task->block0; i < task->block1; i++) {
        int64_t row = i / across, column = i % across;
        int64_t first = row * task->ldw + column * block->elements;
        if (task->w_type == GATUN_F32) {
            memcpy(x, (const uint8_t *)task->w + first * 4, (size_t)block->elements * sizeof *x);
        }
        for (int32_t j = 0; task->w_type != GATUN_F32 && j < block->elements; j++) {
            x[j] = gatun_plain_get(task->w_type, task->w, first + j);
        }
        gatun_gguf_encode(m->encoding, x,
                          (uint8_t *)m->codes + row * gatun_gguf_stride(m, block) + column * block->bytes);
    }
}
