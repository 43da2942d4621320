/* reentry.c - a signal handler that allocates while its own thread is inside the allocator's slow path.
 *
 *     reentry malloc|free|large|realloc|stats|fine
 *
 * A yield point inside a slow path raises the signal, so the moment is exact.  In the case "fine" the signal
 * comes between calls. Ends by abort, with one line, in every other case.
 */
#include <signal.h>

#include "base/yield.h"
#include "stress.h"

static const char *which;
static void *block_of_other, *large;
static atomic_int handled;

static void handler(int signal_number)
{
    pa_mem_stats stats;
    atomic_fetch_add(&handled, 1);
    if (strcmp(which, "malloc") == 0 || strcmp(which, "fine") == 0)
        for (int i = 0; i < 100000; i++) /* one of them needs more than the fast path */
            pa_malloc(48);
    else if (strcmp(which, "free") == 0)
        pa_free(block_of_other);
    else if (strcmp(which, "large") == 0)
        pa_malloc(10 * PA_MIB);
    else if (strcmp(which, "realloc") == 0)
        pa_realloc(large, 20 * PA_MIB);
    else
        pa_read_mem_stats(&stats);
}

static void hook(int point)
{
    if (point == PA_YIELD_ABANDON_OWNER_CLEARED && atomic_load(&handled) == 0)
        raise(SIGUSR1);
}

static void *other(void *unused)
{
    block_of_other = pa_malloc(100);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t id;
    which = argc > 1 ? argv[1] : "fine";
    REQUIRE(pthread_create(&id, NULL, other, NULL) == 0 && pthread_join(id, NULL) == 0);
    large = pa_malloc(10 * PA_MIB);
    signal(SIGUSR1, handler);
    if (strcmp(which, "fine") == 0)
        raise(SIGUSR1);
    else
        atomic_store(&pa_yield_hook, hook);
    for (int i = 0; i < 100000; i++)
        pa_malloc(48);
    REQUIRE(atomic_load(&handled) == 1);
    printf("reentry: %s\n", which);
    return 0;
}
