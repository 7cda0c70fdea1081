/* Blocks of Q4_K and Q6_K for 256 numbers, searched for the least squared error. */
#ifndef GATUN_GGUF_SEARCH_H
#define GATUN_GGUF_SEARCH_H

#include "encodings/codes.h"

void gatun_search_q4_k(const float *x, uint8_t *block);
void gatun_search_q6_k(const float *x, uint8_t *block);

#endif
