/* Rounds of work that several threads begin together. */
#ifndef GATUN_PROBE_ROUNDS_H
#define GATUN_PROBE_ROUNDS_H

#include "probe.h"

typedef void peak_loop(void);
typedef void round_body(void *context, int32_t worker, int32_t workers);

double now_seconds(void);
/* Runs the body on so many threads at once, `rounds` times; the seconds of the shortest round, from its start to the
 * end of its last thread. 0: the threads could not be had. */
double best_round(round_body *body, void *context, int32_t threads, int32_t rounds);

#endif
