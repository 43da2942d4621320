/* attaching.c - fork while another thread is the first of the process to come to the heap.
 *
 * The forking thread has never allocated, so nothing but our handlers can tell the child what was under way.  Each
 * case needs a process that nobody has attached to yet and is therefore a fork of main, which never does:
 *
 *   locked   the first thread has the list of Ps locked; the child and the parent go on allocating
 *   handled  it has installed the handlers and has not come back from that; the child must not install them again:
 *            it would then take every lock twice when it forks
 *   managed  the same with the collector's handlers
 */
#include "base/yield.h"
#include "stress.h"

#include <sys/wait.h>

enum { CHILD_SECONDS = 30 };

static _Atomic int stop_at = -1;
static sem_t parked;
static atomic_bool forked;

static bool somebody_waits_for_the_list(void)
{
    return atomic_load(&pa_the_procs.lock.state) & PA_LOCK_SLEEPERS;
}

/* The thread that gets there first stays until the fork was made, or waits for what it holds. */
static void hook(int point)
{
    int expected = point;
    if (!atomic_compare_exchange_strong(&stop_at, &expected, -1))
        return;
    sem_post(&parked);
    while (!atomic_load(&forked) && !(point == PA_YIELD_ATTACH_LOCKED && somebody_waits_for_the_list()))
        sched_yield();
}

static void allocate(void)
{
    void *blocks[100];
    for (size_t i = 0; i < 100; i++) {
        blocks[i] = pa_malloc(i * i + 1);
        REQUIRE(blocks[i]);
    }
    for (size_t i = 0; i < 100; i++)
        pa_free(blocks[i]);
}

static void collect(void)
{
    REQUIRE(pa_enter());
    REQUIRE(pa_new_bytes(100));
    pa_leave();
    pa_gc();
}

/* managed: NULL or not. */
static void *use(void *managed)
{
    allocate();
    if (managed)
        collect(); /* its threads go on after it */
    else
        heap_must_be_whole();
    return NULL;
}

static void must_end_well(pid_t child)
{
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

static pid_t fork_within(unsigned seconds)
{
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        alarm(seconds);
    return child;
}

/* In a process of its own. */
static void run(int point, void *managed)
{
    REQUIRE(!pa_the_heap.initialised);
    REQUIRE(sem_init(&parked, 0, 0) == 0);
    atomic_store(&stop_at, point);
    atomic_store(&pa_yield_hook, hook);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, use, managed) == 0);
    while (sem_wait(&parked) != 0)
        continue;
    pid_t child = fork_within(CHILD_SECONDS);
    if (child == 0) {
        atomic_store(&pa_yield_hook, NULL);
        use(managed);
        pid_t grandchild = fork_within(CHILD_SECONDS);
        if (grandchild)
            must_end_well(grandchild);
        use(managed);
        _exit(0);
    }
    atomic_store(&forked, true);
    must_end_well(child);
    REQUIRE(pthread_join(thread, NULL) == 0);
    use(managed);
}

static void in_a_process_of_its_own(int point, void *managed)
{
    pid_t child = fork_within(4 * CHILD_SECONDS);
    if (child == 0) {
        run(point, managed);
        _exit(0);
    }
    must_end_well(child);
}

int main(void)
{
    in_a_process_of_its_own(PA_YIELD_ATTACH_LOCKED, NULL);
    in_a_process_of_its_own(PA_YIELD_FORK_HANDLED, NULL);
    in_a_process_of_its_own(PA_YIELD_FORK_GC_HANDLED, &parked);
    puts("attaching: good");
    return 0;
}
