/* Threads of a probe: they meet before and after every round, so that a round is as long as its slowest thread. */
#include "rounds.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

typedef struct crew {
    round_body *body;
    void *context;
    int32_t threads;
    int32_t rounds;
    pthread_mutex_t gate; /* closed until it is known whether every thread could be had */
    atomic_bool cancelled;
    atomic_int arrived;
    atomic_int phase;
} crew;

typedef struct member {
    crew *crew;
    int32_t worker;
    pthread_t thread;
} member;

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Waits for all; spins, since a sleeping thread would start late and make the round longer than the work. */
static void meet(crew *c) {
    int phase = atomic_load(&c->phase);
    if (atomic_fetch_add(&c->arrived, 1) + 1 == c->threads) {
        atomic_store(&c->arrived, 0);
        atomic_fetch_add(&c->phase, 1);
        return;
    }
    while (atomic_load_explicit(&c->phase, memory_order_acquire) == phase) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

static double work(crew *c, int32_t worker) {
    double best = 0;
    for (int32_t round = 0; round < c->rounds; round++) {
        meet(c);
        double start = now_seconds();
        c->body(c->context, worker, c->threads);
        meet(c);
        double seconds = now_seconds() - start;
        best = round == 0 || seconds < best ? seconds : best;
    }
    return best;
}

static void *start(void *argument) {
    member *m = argument;
    pthread_mutex_lock(&m->crew->gate);
    pthread_mutex_unlock(&m->crew->gate);
    if (!atomic_load(&m->crew->cancelled)) {
        work(m->crew, m->worker);
    }
    return NULL;
}

double best_round(round_body *body, void *context, int32_t threads, int32_t rounds) {
    if (threads < 1 || rounds < 1) {
        return 0;
    }
    member *members = calloc((size_t)threads, sizeof *members);
    if (!members) {
        return 0;
    }
    crew c = {.body = body, .context = context, .threads = threads, .rounds = rounds};
    pthread_mutex_init(&c.gate, NULL);
    pthread_mutex_lock(&c.gate);
    int32_t had = 1;
    while (had < threads) {
        members[had] = (member){.crew = &c, .worker = had};
        if (pthread_create(&members[had].thread, NULL, start, &members[had]) != 0) {
            atomic_store(&c.cancelled, true);
            break;
        }
        had++;
    }
    pthread_mutex_unlock(&c.gate);
    double best = had == threads ? work(&c, 0) : 0;
    for (int32_t i = 1; i < had; i++) {
        pthread_join(members[i].thread, NULL);
    }
    pthread_mutex_destroy(&c.gate);
    free(members);
    return best;
}
