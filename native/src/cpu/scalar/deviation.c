/* gatun_deviation__scalar: sums of squares, in double, of numbers and of what became of them. */
#include "cpu/kernels.h"
#include "encodings/numbers.h"

void gatun_deviation__scalar(const void *w, int32_t w_type, const float *restored, int64_t count, double *sums) {
    for (int64_t i = 0; i < count; i++) {
        float before = gatun_plain_get(w_type, w, i);
        double difference = (double)restored[i] - (double)before;
        sums[0] += (double)before * (double)before;
        sums[1] += difference * difference;
        double distance = (double)fabsf(restored[i] - before);
        sums[2] = distance > sums[2] || isnan(distance) ? distance : sums[2];
    }
}
