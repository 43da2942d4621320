/* inject.c - the n-th call to the operating system fails, and all after it, for every n.
 *
 *     inject [most calls]
 *
 * Each n runs a scenario in a fresh child, from the very first allocation on: small, large and aligned
 * blocks, many
 * arenas, realloc, threads that start meanwhile, giving memory back.  Whatever fails must fail with NULL and
 * ENOMEM and leave the heap whole; once the OS is kind again, everything must work and come back.  The
 * parent raises n until
 * scenarios pass without any failure, so every call is reached.
 */
#include "stress.h"

#include <sys/wait.h>

enum { BLOCKS = 64, CLEAN_IN_A_ROW = 3, PASSED = 0, REFUSED_SOME = 10 };

static atomic_long refused;

/* Counts and checks a refusal. Returns its argument. */
static void *checked(void *p)
{
    if (!p) {
        REQUIRE(errno == ENOMEM, "errno %d", errno);
        atomic_fetch_add(&refused, 1);
    }
    errno = 0;
    return p;
}

static void *thread(void *argument)
{
    void *blocks[BLOCKS];
    errno = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = checked(pa_malloc((size_t)1 << i % 18));
    for (size_t i = 0; i < BLOCKS; i++)
        pa_free(blocks[i]);
    return NULL;
}

static void scenario(void)
{
    void *blocks[BLOCKS];
    errno = 0;
    for (size_t i = 0; i < BLOCKS; i++) { /* the first ever among them */
        size_t nbytes = i * i * 9;
        if ((blocks[i] = checked(pa_malloc(nbytes))))
            pattern_fill(blocks[i], nbytes, (uint32_t)i);
    }
    void *large[5] = {
        checked(pa_malloc(PA_MIB)),
        checked(pa_malloc(40 * PA_MIB)),
        checked(pa_malloc(130 * PA_MIB)),
        checked(pa_calloc(1, 70 * PA_MIB)),
        checked(pa_memalign(PA_MIB, 3 * PA_MIB)),
    };
    pthread_t id;
    REQUIRE(pthread_create(&id, NULL, thread, NULL) == 0);
    REQUIRE(pthread_join(id, NULL) == 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t nbytes = i * i * 9, wanted = i % 8 == 7 ? 30 * PA_MIB : nbytes * 3 + 1;
        void *p = blocks[i] ? checked(pa_realloc(blocks[i], wanted)) : NULL;
        if (p)
            blocks[i] = p;
        if (blocks[i])
            pattern_verify(blocks[i], nbytes, nbytes, (uint32_t)i); /* also where it was refused */
    }
    void *grown = large[0] ? checked(pa_realloc(large[0], 90 * PA_MIB)) : NULL;
    if (grown)
        large[0] = grown;
    pa_free_os_memory();
    heap_must_be_whole();
    for (size_t i = 0; i < 5; i++)
        pa_free(large[i]);
    pa_free_os_memory(); /* may be refused as well */
    heap_must_be_whole();
    for (size_t i = 0; i < BLOCKS; i++)
        pa_free(blocks[i]);
    heap_must_be_whole();
}

static void run_child(long nth)
{
    pa_vm_inject_failure(nth);
    scenario();
    long seen = atomic_exchange(&refused, 0);
    pa_vm_inject_failure(0);
    scenario(); /* later calls work */
    REQUIRE(atomic_load(&refused) == 0, "%ld refused by a kind OS after failure %ld", atomic_load(&refused),
            nth);
    heap_must_be_empty();
    _exit(seen ? REFUSED_SOME : PASSED);
}

int main(int argc, char **argv)
{
    long most = argument(argc, argv, 1, 500), n = 1, clean = 0, failing = 0;
    for (; clean < CLEAN_IN_A_ROW; n++) {
        REQUIRE(n <= most, "still failing at call %ld", n);
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0)
            run_child(n);
        int status;
        REQUIRE(waitpid(pid, &status, 0) == pid);
        REQUIRE(WIFEXITED(status) && (WEXITSTATUS(status) == PASSED || WEXITSTATUS(status) == REFUSED_SOME),
                "call %ld: %#x", n, (unsigned)status);
        bool some = WEXITSTATUS(status) == REFUSED_SOME;
        failing += some;
        clean = some ? 0 : clean + 1;
    }
    REQUIRE(failing >= 8, "only %ld calls could fail: the scenario does not reach the OS", failing);
    printf("inject: %ld calls, %ld of them refused something\n", n - 1, failing);
    return 0;
}
