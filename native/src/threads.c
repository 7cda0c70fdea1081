/*
 * The one thread pool. A call posts a job of `workers` indices; the caller takes indices itself until none is left, and
 * idle threads help. So a caller never waits for a thread that is busy elsewhere, and callers cannot deadlock: whoever
 * finds no help does all the work alone.
 *
 * An idle thread spins on the number of indices not yet taken for `spin_us`, then sleeps. Threads are created by the
 * first call that can use them. In a forked child the pool starts empty again.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "gatun_internal.h"

enum { MAX_THREADS = 1024, DEFAULT_SPIN_US = 100, STACK_BYTES = 1 << 20, SPINS_PER_LOOK = 64 };

typedef struct job {
    gatun_parallel_body *body;
    void *context;
    int32_t workers;
    int32_t next;              /* first index not taken; under the lock */
    bool waiting;              /* the caller sleeps; under the lock */
    atomic_int_least32_t open; /* indices not finished */
    struct job *following;
} job;

static struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;          /* there are indices, or threads must stop */
    pthread_cond_t done;          /* some caller's job is finished, or the last one */
    job *jobs;                    /* with indices not taken */
    atomic_int_least32_t untaken; /* indices in all of them: what idle threads look at */
    atomic_int_least32_t size;    /* threads, the caller's included; 0: not set */
    atomic_int_least32_t spin_us;
    atomic_bool stopping;
    int32_t running; /* callers inside gatun_parallel */
    int32_t sleeping;
    int32_t threads; /* created */
    bool resizing;
    pthread_t ids[MAX_THREADS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER,
          .spin_us = DEFAULT_SPIN_US};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* The cores that this process may use. */
static int32_t available_cores(void) {
    cpu_set_t set;
    long cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (int32_t)cores;
}

int32_t gatun_threads(void) {
    int32_t size = atomic_load_explicit(&pool.size, memory_order_relaxed);
    if (size == 0) {
        int32_t cores = available_cores();
        atomic_compare_exchange_strong(&pool.size, &size, cores);
        size = atomic_load(&pool.size);
    }
    return size;
}

/* Takes an index of the oldest job; -1 when there is none. The lock is held. */
static int32_t take(job *j) {
    int32_t index = j->next++;
    atomic_fetch_sub_explicit(&pool.untaken, 1, memory_order_relaxed);
    if (j->next == j->workers) { /* off the list: nobody else looks at it */
        job **link = &pool.jobs;
        while (*link != j) {
            link = &(*link)->following;
        }
        *link = j->following;
    }
    return index;
}

/* Marks an index as finished. After the count reaches zero the job may be gone. The lock is held. */
static void finish(job *j) {
    bool waiting = j->waiting;
    if (atomic_fetch_sub_explicit(&j->open, 1, memory_order_acq_rel) == 1 && waiting) {
        pthread_cond_broadcast(&pool.done);
    }
}

/* Spins until there is work or the spin time is over. */
static void spin(void) {
    int32_t limit = atomic_load_explicit(&pool.spin_us, memory_order_relaxed);
    int64_t end = limit == 0 ? 0 : now_us() + limit;
    while (limit != 0 && now_us() < end) {
        for (int32_t i = 0; i < SPINS_PER_LOOK; i++) {
            if (atomic_load_explicit(&pool.untaken, memory_order_relaxed) > 0 ||
                atomic_load_explicit(&pool.stopping, memory_order_relaxed)) {
                return;
            }
            relax();
        }
    }
}

static void *helper(void *unused) {
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    while (!atomic_load(&pool.stopping)) {
        job *j = pool.jobs;
        if (j != NULL) {
            int32_t index = take(j);
            pthread_mutex_unlock(&pool.lock);
            j->body(j->context, index, j->workers);
            pthread_mutex_lock(&pool.lock);
            finish(j);
            continue;
        }
        pthread_mutex_unlock(&pool.lock);
        spin();
        pthread_mutex_lock(&pool.lock);
        while (pool.jobs == NULL && !atomic_load(&pool.stopping) &&
               atomic_load_explicit(&pool.untaken, memory_order_relaxed) == 0) {
            pool.sleeping++;
            pthread_cond_wait(&pool.work, &pool.lock);
            pool.sleeping--;
        }
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* The child of a fork has no helpers, and the lock may have been held by a thread it does not have. */
static void after_fork(void) {
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.work, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.jobs = NULL;
    atomic_store(&pool.untaken, 0);
    atomic_store(&pool.stopping, false);
    pool.running = 0;
    pool.sleeping = 0;
    pool.threads = 0;
    pool.resizing = false;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork); }

/* Creates the threads that are missing for `workers`; with fewer the callers do the work. The lock is held. */
static void grow(int32_t workers) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int32_t size = gatun_threads();
    int32_t wanted = (workers < size ? workers : size) - 1;
    if (pool.threads >= wanted) {
        return;
    }
    pthread_once(&once, watch_forks);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return;
    }
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t all, old; /* the process's signals are not for these threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (pool.threads < wanted && pthread_create(&pool.ids[pool.threads], &attributes, helper, NULL) == 0) {
        pool.threads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
}

static void post(job *j) {
    job **link = &pool.jobs;
    while (*link != NULL) {
        link = &(*link)->following;
    }
    *link = j;
    atomic_fetch_add_explicit(&pool.untaken, j->workers, memory_order_relaxed);
    int32_t wanted = j->workers - 1;
    if (pool.sleeping > 0 && wanted == 1) {
        pthread_cond_signal(&pool.work);
    } else if (pool.sleeping > 0) {
        pthread_cond_broadcast(&pool.work);
    }
}

static void await(job *j) {
    int32_t limit = atomic_load_explicit(&pool.spin_us, memory_order_relaxed);
    int64_t end = limit == 0 ? 0 : now_us() + limit;
    while (limit != 0 && now_us() < end) {
        for (int32_t i = 0; i < SPINS_PER_LOOK; i++) {
            if (atomic_load_explicit(&j->open, memory_order_acquire) == 0) {
                return;
            }
            relax();
        }
    }
    pthread_mutex_lock(&pool.lock);
    j->waiting = true;
    while (atomic_load_explicit(&j->open, memory_order_acquire) != 0) {
        pthread_cond_wait(&pool.done, &pool.lock);
    }
    pthread_mutex_unlock(&pool.lock);
}

void gatun_parallel(int32_t workers, gatun_parallel_body *body, void *context) {
    if (workers <= 1) {
        body(context, 0, 1);
        return;
    }
    job j = {.body = body, .context = context, .workers = workers};
    atomic_init(&j.open, workers);
    pthread_mutex_lock(&pool.lock);
    if (pool.resizing) {
        pthread_mutex_unlock(&pool.lock);
        for (int32_t index = 0; index < workers; index++) {
            body(context, index, workers);
        }
        return;
    }
    pool.running++;
    grow(workers);
    post(&j);
    while (j.next < workers) {
        int32_t index = take(&j);
        pthread_mutex_unlock(&pool.lock);
        body(context, index, workers);
        pthread_mutex_lock(&pool.lock);
        atomic_fetch_sub_explicit(&j.open, 1, memory_order_acq_rel);
    }
    pthread_mutex_unlock(&pool.lock);
    await(&j);
    pthread_mutex_lock(&pool.lock);
    if (--pool.running == 0 && pool.resizing) {
        pthread_cond_broadcast(&pool.done);
    }
    pthread_mutex_unlock(&pool.lock);
}

gatun_status gatun_threads_set(int32_t threads, int32_t spin_us) {
    if (threads < 1 || threads > MAX_THREADS || spin_us < 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "threads: found %d threads and a spin of %d us, expected 1 to %d and at least 0", threads,
                          spin_us, MAX_THREADS);
    }
    pthread_mutex_lock(&pool.lock);
    while (pool.resizing) { /* another caller sets it */
        pthread_cond_wait(&pool.done, &pool.lock);
    }
    pool.resizing = true;
    while (pool.running > 0) {
        pthread_cond_wait(&pool.done, &pool.lock);
    }
    /* Calls that come from here on find no helpers and work alone. */
    atomic_store(&pool.stopping, true);
    pthread_cond_broadcast(&pool.work);
    int32_t stopped = pool.threads;
    pthread_mutex_unlock(&pool.lock);
    for (int32_t i = 0; i < stopped; i++) {
        pthread_join(pool.ids[i], NULL);
    }
    pthread_mutex_lock(&pool.lock);
    pool.threads = 0;
    atomic_store(&pool.stopping, false);
    atomic_store(&pool.size, threads);
    atomic_store(&pool.spin_us, spin_us);
    pool.resizing = false;
    pthread_cond_broadcast(&pool.done);
    pthread_mutex_unlock(&pool.lock);
    return GATUN_OK;
}

gatun_status gatun_workers(int32_t threads, int32_t *workers) {
    if (threads < 0 || threads > MAX_THREADS) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "threads: found %d, expected 0 to %d", threads, MAX_THREADS);
    }
    int32_t size = gatun_threads();
    *workers = threads == 0 || threads > size ? size : threads;
    return GATUN_OK;
}
