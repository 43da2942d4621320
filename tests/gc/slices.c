/* slices.c - what the collector's threads ask of the scheduler, and that nobody else's slices change.
 *
 *     slices [refuse=ERRNO]
 *
 * refuse: a sandbox answers sched_setattr(2) with that error, as an older kernel or a stricter one would.  White-box:
 * the length that they ask for.
 */
#include "gc/gc.h"
#include "gc_test.h"
#include "sys/thread.h"

#include <dirent.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

typedef struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} attributes;

static attributes attributes_of(pid_t thread)
{
    attributes a = {.size = sizeof a};
    REQUIRE(syscall(SYS_sched_getattr, thread, &a, sizeof a, 0) == 0, "errno %d", errno);
    return a;
}

static void refuse(unsigned error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setattr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof *program, .filter = program};
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0, "errno %d", errno);
}

/* A thread of its own, so that nothing inherits what it tries. Its result: has this kernel slices of one's own? */
static void *try_slices(void *unused)
{
    attributes before = attributes_of(0);
    errno = ERANGE;
    bool ok = pa_thread_set_slice(200 * 1000);
    REQUIRE(errno == ERANGE);
    attributes after = attributes_of(0);
    REQUIRE(after.policy == before.policy && after.nice == before.nice && after.flags == before.flags);
    REQUIRE(after.runtime == (ok ? 200 * 1000 : before.runtime), "%" PRIu64, after.runtime);
    return (void *)(uintptr_t)ok;
}

/* Threads of the collector seen, which else have the attributes of any; those without that slice are counted. */
static int look_at_threads(const attributes *any, uint64_t slice_ns, int *others)
{
    int seen = 0;
    *others = 0;
    DIR *tasks = opendir("/proc/self/task");
    REQUIRE(tasks);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        bool named = file && fgets(name, sizeof name, file);
        if (file)
            fclose(file);
        if (!named || (strcmp(name, "pyalloc-gc\n") && strcmp(name, "pyalloc-mark\n")))
            continue;
        attributes a = attributes_of((pid_t)strtol(entry->d_name, NULL, 10));
        REQUIRE(a.policy == any->policy && a.nice == any->nice, "%s", name);
        *others += a.runtime != slice_ns;
        seen++;
    }
    closedir(tasks);
    return seen;
}

int main(int argc, char **argv)
{
    long error = option(argc, argv, "refuse", 0);
    if (error)
        refuse((unsigned)error);
    attributes mine = attributes_of(0);
    pthread_t id = start(try_slices, NULL);
    void *known;
    REQUIRE(pthread_join(id, &known) == 0);
    REQUIRE(!error || !known);
    for (int i = 0; i < 3; i++) {
        enter();
        for (int k = 0; k < 10000; k++)
            must(pa_new_bytes(100));
        pa_leave();
        pa_gc();
    }
    int seen, others;
    double end = seconds_now() + 20;
    do /* one that was just started may not have run yet */
        seen = look_at_threads(&mine, known ? PA_COLLECTOR_SLICE_NS : mine.runtime, &others);
    while (others && seconds_now() < end);
    REQUIRE(seen >= 1 && !others, "%d threads of the collector, %d with another slice", seen, others);
    attributes now = attributes_of(0);
    REQUIRE(memcmp(&now, &mine, sizeof now) == 0);
    printf("slices: %s, %d threads\n", known ? "known" : "not known", seen);
    return 0;
}
