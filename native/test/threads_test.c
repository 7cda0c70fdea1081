/*
 * The pool under several callers at once, while another thread sets its size; and in a forked child. Meant to be run
 * with -DGATUN_SANITIZE=thread as well.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "check.h"
#include "gatun_internal.h"

/* gcc and clang say it differently. */
#if defined(__SANITIZE_THREAD__)
enum { UNDER_THREAD_SANITIZER = 1 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { UNDER_THREAD_SANITIZER = 1 };
#else
enum { UNDER_THREAD_SANITIZER = 0 };
#endif
#else
enum { UNDER_THREAD_SANITIZER = 0 };
#endif

enum { CALLERS = 4, ROUNDS = 300, NUMBERS = 200000 };

static float *numbers;
static uint8_t *expected;
static atomic_bool callers_done;

static void *caller(void *unused) {
    (void)unused;
    uint8_t *out = (uint8_t *)buffer(NUMBERS, 0);
    for (int32_t i = 0; i < ROUNDS; i++) {
        int64_t count = i % 10 == 0 ? NUMBERS : 1000 * (i % 7);
        memset(out, 0xAA, NUMBERS);
        gatun_status status = gatun_convert(numbers, GATUN_F32, out, GATUN_F8_E4M3, count, 1, GATUN_ISA_BEST, i % 5);
        if (status != GATUN_OK || memcmp(out, expected, (size_t)count) != 0) {
            free(out);
            return "wrong numbers";
        }
    }
    free(out);
    return NULL;
}

static void *resizer(void *unused) {
    (void)unused;
    for (int32_t i = 0; !atomic_load(&callers_done); i++) {
        if (gatun_threads_set(1 + i % 6, i % 3 * 20) != GATUN_OK) {
            return "not set";
        }
    }
    return NULL;
}

/* Every index is run once, on whatever thread. */
typedef struct counts {
    atomic_int_least32_t runs[64];
} counts;

static void count_body(void *context, int32_t worker, int32_t workers) {
    CHECK(workers == 64, "%d workers", workers);
    atomic_fetch_add(&((counts *)context)->runs[worker], 1);
}

static void every_index_runs_once(void) {
    for (int32_t i = 0; i < 1000; i++) {
        counts c;
        memset(&c, 0, sizeof c);
        gatun_parallel(64, count_body, &c);
        for (int32_t j = 0; j < 64; j++) {
            CHECK(atomic_load(&c.runs[j]) == 1, "index %d ran %d times", j, atomic_load(&c.runs[j]));
        }
    }
}

static void forked_child_works(void) {
    uint8_t *out = (uint8_t *)buffer(NUMBERS, 0);
    pid_t child = fork();
    if (child == 0) {
        gatun_status status = gatun_convert(numbers, GATUN_F32, out, GATUN_F8_E4M3, NUMBERS, 1, GATUN_ISA_BEST, 3);
        _exit(status == GATUN_OK && memcmp(out, expected, NUMBERS) == 0 ? 0 : 1);
    }
    int result = -1;
    CHECK(child > 0 && waitpid(child, &result, 0) == child && result == 0, "the child ended with %d", result);
    free(out);
}

static void bad_sizes_are_refused(void) {
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_threads_set(0, 0));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_threads_set(1025, 0));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_threads_set(2, -1));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT,
                 gatun_convert(numbers, GATUN_F32, expected, GATUN_F32, 0, 0, GATUN_ISA_BEST, -1));
}

int main(void) {
    random_state r = {9};
    numbers = (float *)buffer(4 * NUMBERS, 0);
    expected = (uint8_t *)buffer(NUMBERS, 0);
    for (int32_t i = 0; i < NUMBERS; i++) {
        numbers[i] = random_float(&r) * 300;
    }
    CHECK(gatun_threads() >= 1, "%d threads", gatun_threads());
    CHECK_STATUS(GATUN_OK, gatun_convert(numbers, GATUN_F32, expected, GATUN_F8_E4M3, NUMBERS, 1, GATUN_ISA_SCALAR, 1));
    CHECK_STATUS(GATUN_OK, gatun_threads_set(3, 50));
    CHECK(gatun_threads() == 3, "%d threads", gatun_threads());
    every_index_runs_once();
    pthread_t threads[CALLERS + 1];
    for (int32_t i = 0; i <= CALLERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, i < CALLERS ? caller : resizer, NULL) == 0, "no thread");
    }
    for (int32_t i = 0; i <= CALLERS; i++) {
        if (i == CALLERS) {
            atomic_store(&callers_done, true);
        }
        void *problem;
        pthread_join(threads[i], &problem);
        CHECK(problem == NULL, "%s", (const char *)problem);
    }
    CHECK_STATUS(GATUN_OK, gatun_threads_set(3, 0));
    every_index_runs_once();       /* without spinning */
    if (!UNDER_THREAD_SANITIZER) { /* which starts no threads after a fork */
        forked_child_works();
    }
    bad_sizes_are_refused();
    free(numbers);
    free(expected);
    return finish();
}
