/* moments.c - malloc at the moments when little works: before constructors, in key destructors, at exit, in
 * children of vfork and clone, while a library with thread-local storage is loaded.
 *
 *     moments CASE [library]
 *
 * Some of it runs in every case, before main. Every block is filled and read back. Prints "ok".
 */
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUIRE(cond) ((cond) ? (void)0 : (dprintf(2, "line %d: not so: %s\n", __LINE__, #cond), _exit(1)))

enum { KEYS = 40, THREADS = 10, SIZES = 12 };

static const size_t sizes[SIZES] = {0, 1, 8, 24, 100, 1000, 1025, 5000, 32768, 32769, 70000, 300000};

typedef struct blocks {
    unsigned char *at[SIZES];
} blocks;

static void take(blocks *b, int seed)
{
    for (int i = 0; i < SIZES; i++) {
        b->at[i] = i % 3 ? malloc(sizes[i]) : calloc(1, sizes[i]);
        REQUIRE(b->at[i] != NULL);
        memset(b->at[i], seed + i, sizes[i]);
    }
}

static void give(blocks *b, int seed)
{
    for (int i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < sizes[i]; k += 97)
            REQUIRE(b->at[i][k] == (unsigned char)(seed + i));
        if (i % 2)
            REQUIRE((b->at[i] = realloc(b->at[i], sizes[i] / 2 + 10)) != NULL);
        free(b->at[i]);
    }
}

/* ---- Before every constructor, of libraries too ---- */

static pthread_key_t keys[KEYS];
static blocks before_all;
static int preinit_ran;

static void destructor(void *value);

/* Keys first: the allocator's own is then beyond those that need no memory of their own in pthread_setspecific. */
static void preinit(int argc, char **argv, char **envp)
{
    for (int i = 0; i < KEYS; i++)
        REQUIRE(pthread_key_create(&keys[i], destructor) == 0);
    take(&before_all, 3);
    preinit_ran = 1;
}
__attribute__((section(".preinit_array"), used)) static void (*preinit_entry)(int, char **, char **) = preinit;

/* ---- Key destructors ---- */

static _Atomic int destroyed;

/* Runs before and after the allocator's own; the value comes back once, so there is a second round. */
static void destructor(void *value)
{
    blocks *b = value, fresh;
    int again = b->at[0][0] == 1;
    give(b, again);
    free(b);
    take(&fresh, 7);
    give(&fresh, 7);
    destroyed++;
    if (again) {
        blocks *second = malloc(sizeof *second);
        memset(second, 0, sizeof *second);
        take(second, 0);
        REQUIRE(second->at[0] = realloc(second->at[0], 1));
        second->at[0][0] = 0;
        REQUIRE(pthread_setspecific(keys[0], second) == 0);
    }
}

static void *thread_with_keys(void *unused)
{
    for (int i = 0; i < KEYS; i++) {
        blocks *b = malloc(sizeof *b);
        take(b, i == 0);
        REQUIRE(b->at[0] = realloc(b->at[0], 1));
        b->at[0][0] = i == 0;
        REQUIRE(pthread_setspecific(keys[i], b) == 0);
    }
    dlsym(RTLD_DEFAULT, "there is no such symbol");
    REQUIRE(dlerror() != NULL); /* its text lives in thread-local memory that the C library frees last */
    return malloc(10);
}

static void run_threads(void *(*body)(void *), void *argument)
{
    pthread_t ids[THREADS];
    void *result;
    for (int i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&ids[i], NULL, body, argument) == 0);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(ids[i], &result) == 0);
        free(result);
    }
}

/* ---- At exit ---- */

static blocks for_exit;

static void at_exit(void)
{
    blocks b;
    give(&for_exit, 50);
    take(&b, 51);
    give(&b, 51);
    take(&for_exit, 52);
}

static __attribute__((destructor(101))) void last(void) /* of this program; after atexit handlers */
{
    blocks b;
    if (for_exit.at[0]) {
        give(&for_exit, 52);
        take(&b, 53);
        give(&b, 53);
        (void)!write(1, "last\n", 5);
    }
}

/* ---- Children that the C library's fork does not know ---- */

static void expect_child(pid_t child, int code)
{
    int status;
    REQUIRE(child > 0 && waitpid(child, &status, __WALL) == child);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

static void work(int seed)
{
    blocks b;
    take(&b, seed);
    give(&b, seed);
}

/* The child runs in our memory and with our thread's P while we wait. */
static __attribute__((noinline)) pid_t vfork_and_work(void)
{
    pid_t child = vfork();
    if (child == 0) {
        work(60);
        _exit(9);
    }
    return child;
}

static int cloned(void *unused)
{
    work(61);
    return 11;
}

static void children(void)
{
    blocks kept;
    take(&kept, 62);
    for (int i = 0; i < 5; i++) {
        expect_child(vfork_and_work(), 9);
        char *stack = malloc(256 * 1024);
        expect_child(clone(cloned, stack + 256 * 1024, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL), 11);
        expect_child(clone(cloned, stack + 256 * 1024, SIGCHLD, NULL), 11);
        free(stack);
        pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL); /* fork without handlers */
        if (child == 0) {
            give(&kept, 62);
            work(63);
            _exit(12);
        }
        expect_child(child, 12);
        child = fork();
        if (child == 0) {
            give(&kept, 62);
            run_threads(thread_with_keys, NULL);
            exit(13); /* with handlers */
        }
        expect_child(child, 13);
    }
    give(&kept, 62);
}

/* ---- Loading a library with thread-local storage ---- */

static void *use_library(void *argument)
{
    for (int i = 0; i < 5; i++) {
        void *handle = dlopen(argument, RTLD_NOW);
        REQUIRE(handle != NULL);
        int (*use)(int) = (int (*)(int))dlsym(handle, "tls_use");
        REQUIRE(use && use(i) == i);
        REQUIRE(dlclose(handle) == 0);
    }
    return NULL;
}

/* ---- */

int main(int argc, char **argv)
{
    const char *which = argc > 1 ? argv[1] : "";
    REQUIRE(preinit_ran);
    give(&before_all, 3);
    work(2);
    if (strcmp(which, "keys") == 0) {
        run_threads(thread_with_keys, NULL);
        REQUIRE(destroyed == THREADS * (KEYS + 1));
    } else if (strcmp(which, "exit") == 0) {
        take(&for_exit, 50);
        REQUIRE(atexit(at_exit) == 0);
    } else if (strcmp(which, "children") == 0) {
        children();
    } else if (strcmp(which, "tls") == 0 && argc > 2) {
        run_threads(use_library, argv[2]);
    } else if (*which) {
        return 2;
    }
    puts("ok");
    fflush(stdout);
    return 0;
}
