/* live.c - the live page read at full speed while threads churn: no snapshot is torn, and fork children have pages of
 * their own.
 *
 *     live [reads] [threads] [viewers] [forks]
 *
 * Workers churn explicit and managed blocks.  Viewers map the page as another process would and ask without a pause;
 * what they get must add up as one snapshot does (sums over classes against the totals, which are copied apart: half
 * of one snapshot and half of another would not).  Meanwhile main forks: a child has neither the mapping nor the
 * descriptor, until it allocates; then it has a page that names it and answers.
 */
#include "stress.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { MAX_THREADS = 8, SLOTS = 64 };

static atomic_bool stop;
static atomic_long reads_left, reads_done;

static void *churn(void *argument)
{
    uint64_t random = (uintptr_t)argument;
    void *mine[SLOTS] = {0};
    size_t offset = 0;
    const pa_type *type = pa_type_new(16, &offset, 1);
    REQUIRE(type);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        size_t i = random_below(&random, SLOTS);
        pa_free(mine[i]);
        mine[i] = pa_malloc(random_size(&random));
        REQUIRE(mine[i] && pa_enter());
        REQUIRE(pa_new(type) && pa_new_bytes(random_below(&random, 2000)));
        pa_leave();
    }
    for (size_t i = 0; i < SLOTS; i++)
        pa_free(mine[i]);
    return NULL;
}

/* The descriptor of this process's live page, -1: none. */
static int live_fd(void)
{
    DIR *folder = opendir("/proc/self/fd");
    REQUIRE(folder);
    int found = -1;
    for (struct dirent *entry; found < 0 && (entry = readdir(folder));) {
        char target[64] = "";
        if (readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) > 0 &&
            strncmp(target, "/memfd:pyalloc-live", 19) == 0)
            found = atoi(entry->d_name);
    }
    closedir(folder);
    return found;
}

static bool is_mapped(void)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    REQUIRE(maps);
    while (fgets(line, sizeof line, maps))
        found |= strstr(line, "/memfd:pyalloc-live") != NULL;
    fclose(maps);
    return found;
}

static pa_live_page *map_page(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", live_fd());
    int fd = open(path, O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0, "%s", path);
    pa_live_page *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REQUIRE(page != MAP_FAILED && madvise(page, sizeof *page, MADV_DONTFORK) == 0);
    close(fd);
    return page;
}

static void must_add_up(const pa_snapshot *s)
{
    const pa_mem_stats *m = &s->mem;
    uint64_t objects = 0, mallocs = 0, frees = 0;
    for (int c = 0; c < PA_SNAPSHOT_CLASSES; c++) {
        objects += s->classes[c].objects;
        mallocs += s->classes[c].managed_mallocs;
        frees += s->classes[c].managed_frees;
    }
    REQUIRE(objects == m->explicit_objects, "%" PRIu64 " %" PRIu64, objects, m->explicit_objects);
    REQUIRE(mallocs == m->mallocs && frees == m->frees);
    REQUIRE(s->gc.mallocs == mallocs && s->gc.frees == frees);
    REQUIRE(m->heap_sys == m->heap_idle + m->heap_inuse && m->heap_released <= m->heap_idle);
    REQUIRE(m->sys == m->heap_sys + m->mspan_sys + m->mcache_sys + m->gc_sys + m->other_sys);
}

static void *view(void *argument)
{
    pa_live_page *page = argument;
    pa_live_figures *figures = mmap(NULL, sizeof *figures, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t last_ns = 0, last_mallocs = 0;
    REQUIRE(figures != MAP_FAILED);
    while (atomic_fetch_sub(&reads_left, 1) > 0) {
        int error = pa_live_read(page, sizeof *page, figures, 60 * (uint64_t)1000000000);
        REQUIRE(error == 0, "%d", error);
        must_add_up(&figures->snapshot);
        REQUIRE(figures->time_ns > last_ns || (figures->time_ns == last_ns && last_ns != 0));
        REQUIRE(figures->snapshot.mem.mallocs >= last_mallocs);
        last_ns = figures->time_ns;
        last_mallocs = figures->snapshot.mem.mallocs;
        atomic_fetch_add(&reads_done, 1);
    }
    munmap(figures, sizeof *figures);
    munmap(page, sizeof *page);
    return NULL;
}

/* Allocates until it has a page: the next slow path makes one. */
static void wait_for_page(void)
{
    void *kept[2000];
    for (int i = 0; live_fd() < 0; i++) {
        REQUIRE(i < 2000, "no page after many blocks");
        kept[i] = pa_malloc(64 * PA_KIB);
        REQUIRE(kept[i]);
    }
}

static _Noreturn void child_body(bool forks_again)
{
    static pa_live_figures figures;
    REQUIRE(live_fd() < 0 && !is_mapped());
    if (!STRESS_SANITIZED) { /* whose own allocators need not survive a fork of threads */
        wait_for_page();
        pa_live_page *page = map_page();
        REQUIRE(page->process == (uint32_t)getpid());
        REQUIRE(pa_live_read(page, sizeof *page, &figures, 60 * (uint64_t)1000000000) == 0);
        must_add_up(&figures.snapshot);
        REQUIRE(pa_live_start() == 0);
        munmap(page, sizeof *page);
        pid_t grandchild = forks_again ? fork() : 0;
        if (forks_again && grandchild == 0)
            child_body(false);
        int status = 0;
        REQUIRE(!forks_again || (waitpid(grandchild, &status, 0) == grandchild && status == 0), "%d", status);
    }
    _exit(0);
}

static void fork_one(bool forks_again)
{
    int status;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        child_body(forks_again);
    REQUIRE(waitpid(child, &status, 0) == child && status == 0, "%d", status);
}

int main(int argc, char **argv)
{
    long reads = argument(argc, argv, 1, 2000), threads = argument(argc, argv, 2, 3);
    long viewers = argument(argc, argv, 3, 2), forks = argument(argc, argv, 4, 10);
    pthread_t ids[2 * MAX_THREADS];
    REQUIRE(threads <= MAX_THREADS && viewers <= MAX_THREADS);
    REQUIRE(live_fd() < 0 && !is_mapped());
    REQUIRE(pa_live_start() == 0 && pa_live_start() == 0);
    int fd = live_fd();
    REQUIRE(fd >= 0 && is_mapped());
    REQUIRE(ftruncate(fd, 0) != 0 && errno == EPERM, "the size is sealed");
    atomic_store(&reads_left, reads);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_create(&ids[i], NULL, churn, (void *)(uintptr_t)(i + 1)) == 0);
    for (long i = 0; i < viewers; i++)
        REQUIRE(pthread_create(&ids[threads + i], NULL, view, map_page()) == 0);
    for (long i = 0; i < forks; i++)
        fork_one(i % 3 == 0);
    for (long i = 0; i < viewers; i++)
        REQUIRE(pthread_join(ids[threads + i], NULL) == 0);
    atomic_store(&stop, true);
    for (long i = 0; i < threads; i++)
        REQUIRE(pthread_join(ids[i], NULL) == 0);
    REQUIRE(atomic_load(&reads_done) == reads && live_fd() == fd);
    pa_gc();
    heap_must_be_whole();
    printf("live: %ld reads by %ld viewers, %ld threads, %ld forks\n", reads, viewers, threads, forks);
    return 0;
}
