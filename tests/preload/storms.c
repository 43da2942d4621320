/* storms.c - many short lives under the drop-in: forks of a threaded process, and threads.
 *
 *     storms forks COUNT | threads COUNT
 *
 * Children allocate at once, start a thread and free what the parent had; blocks made by one thread are freed by
 * another. Everything is filled and read back. Prints "ok".
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUIRE(cond) ((cond) ? (void)0 : (dprintf(2, "line %d: not so: %s\n", __LINE__, #cond), _exit(1)))

enum { CHURNERS = 2, BLOCKS = 64, AT_ONCE = 16 };

static atomic_bool stop;

static size_t size_of(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (size_t)1 << (*seed >> 28) | (*seed >> 20 & 0xff);
}

static void churn(uint32_t seed, int rounds)
{
    unsigned char *blocks[BLOCKS] = {NULL};
    size_t sizes[BLOCKS];
    for (int i = 0; i < rounds; i++) {
        unsigned k = seed % BLOCKS;
        if (blocks[k]) {
            REQUIRE(blocks[k][0] == (unsigned char)k && blocks[k][sizes[k] - 1] == (unsigned char)k);
            free(blocks[k]);
        }
        sizes[k] = size_of(&seed);
        REQUIRE((blocks[k] = malloc(sizes[k])) != NULL);
        memset(blocks[k], (int)k, sizes[k]);
    }
    for (unsigned k = 0; k < BLOCKS; k++)
        free(blocks[k]);
}

static void *churner(void *seed)
{
    for (uint32_t i = 0; !atomic_load(&stop); i++)
        churn((uint32_t)(uintptr_t)seed + i, 200);
    return NULL;
}

static void *short_thread(void *seed)
{
    churn((uint32_t)(uintptr_t)seed, 60);
    char *gift = malloc(100 + (uintptr_t)seed % 9000);
    strcpy(gift, "gift");
    return gift;
}

static void thread_of_a_child(uint32_t seed)
{
    pthread_t id;
    void *gift;
    REQUIRE(pthread_create(&id, NULL, short_thread, (void *)(uintptr_t)seed) == 0);
    REQUIRE(pthread_join(id, &gift) == 0 && strcmp(gift, "gift") == 0);
    free(gift);
}

static void forks(int count)
{
    pthread_t ids[CHURNERS];
    for (int i = 0; i < CHURNERS; i++)
        REQUIRE(pthread_create(&ids[i], NULL, churner, (void *)(uintptr_t)(i * 7919)) == 0);
    for (int i = 0; i < count; i++) {
        char *from_parent = malloc(1000 + (size_t)i);
        memset(from_parent, 1, 1000);
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            free(from_parent);
            churn((uint32_t)i, 300);
            thread_of_a_child((uint32_t)i);
            if (i % 10 == 0) { /* a grandchild, and an exit with handlers */
                pid_t grandchild = fork();
                if (grandchild == 0) {
                    churn((uint32_t)i, 100);
                    exit(0);
                }
                int status;
                REQUIRE(waitpid(grandchild, &status, 0) == grandchild && status == 0);
            }
            _exit(3);
        }
        free(from_parent);
        int status;
        REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < CHURNERS; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
}

static void threads(int count)
{
    pthread_t ids[AT_ONCE];
    for (int i = 0; i < count; i += AT_ONCE) {
        for (int k = 0; k < AT_ONCE; k++)
            REQUIRE(pthread_create(&ids[k], NULL, short_thread, (void *)(uintptr_t)(i + k)) == 0);
        for (int k = 0; k < AT_ONCE; k++) {
            void *gift;
            REQUIRE(pthread_join(ids[k], &gift) == 0 && strcmp(gift, "gift") == 0);
            free(gift);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "forks") == 0)
        forks(atoi(argv[2]));
    else
        threads(atoi(argv[2]));
    puts("ok");
    return 0;
}
