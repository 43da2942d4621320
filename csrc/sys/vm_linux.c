/* vm_linux.c - the only file that talks to the kernel about memory.
 *
 * Owns no state but three counters and the page size.  No lock.  The contract is in vm.h; man pages:
 * mmap(2), madvise(2), mprotect(2).  Reservations are private mappings without write permission,
 * which Linux does not charge against the commit limit and which "overcommit_memory=2" lets pass.
 */
#include "sys/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/atomics.h"
#include "base/bits.h"

static _Atomic uint64_t heap_mmaps;

#if PA_WHITEBOX
static _Atomic long fail_after; /* 0 = off; counts down to 1, then everything fails */

void pa_vm_inject_failure(long nth)
{
    atomic_store(&fail_after, nth);
}

static bool injected(void)
{
    long n = atomic_load(&fail_after);
    while (n > 1) {
        if (atomic_compare_exchange_weak(&fail_after, &n, n - 1))
            return false;
    }
    return n == 1;
}
static _Atomic int refusal; /* pa_vm_refusal */

void pa_vm_inject_refusal(pa_vm_refusal r)
{
    atomic_store(&refusal, r);
}

static bool refused(int advice)
{
    int r = atomic_load(&refusal);
    return r == PA_VM_REFUSE_MADVISE || (r == PA_VM_REFUSE_MADV_FREE && advice == MADV_FREE);
}
#else
static bool injected(void)
{
    return false;
}

static bool refused(int advice)
{
    (void)advice;
    return false;
}
#endif

size_t pa_vm_page_size_bytes(void)
{
    static _Atomic size_t cached;
    size_t n = atomic_load_explicit(&cached, memory_order_relaxed);
    if (n == 0) {
        n = (size_t)getauxval(AT_PAGESZ); /* sysconf's jump table would bring 64 KiB of the C library's constants in */
        atomic_store_explicit(&cached, n, memory_order_relaxed);
    }
    return n;
}

size_t pa_vm_address_limit_bytes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    return limit.rlim_cur;
}

/* Not by the C library's functions: profilers that take their place (memray) count mappings as memory in use, and ours
 * are address space, most of which is never touched.  Nor do they see those of the C library's malloc, which calls
 * itself.  Sanitizers must see them: they keep books about what lies at an address. */
static void *call_mmap(void *hint, size_t nbytes, int prot, int flags)
{
    if (PA_TSAN || PA_ASAN)
        return mmap(hint, nbytes, prot, flags, -1, 0);
    return (void *)syscall(SYS_mmap, hint, nbytes, prot, flags, -1, (off_t)0);
}

static void call_munmap(void *addr, size_t nbytes)
{
    if (PA_TSAN || PA_ASAN)
        munmap(addr, nbytes);
    else
        syscall(SYS_munmap, addr, nbytes);
}

static void *map(void *hint, size_t nbytes, int prot, int flags)
{
    if (injected())
        return NULL;
    int saved_errno = errno;
    void *p = call_mmap(hint, nbytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags);
    errno = saved_errno;
    return p == MAP_FAILED ? NULL : p;
}

void *pa_vm_reserve(size_t nbytes, bool readable)
{
    void *p = map(NULL, nbytes, readable ? PROT_READ : PROT_NONE, MAP_NORESERVE);
    if (p) {
        int saved_errno = errno;
        madvise(p, nbytes, MADV_DONTDUMP);
        errno = saved_errno;
    }
    return p;
}

bool pa_vm_commit(void *addr, size_t nbytes)
{
    if (injected())
        return false;
    uintptr_t os_page = pa_vm_page_size_bytes();
    uintptr_t lo = pa_round_down((uintptr_t)addr, os_page);
    uintptr_t hi = pa_round_up((uintptr_t)addr + nbytes, os_page);
    int saved_errno = errno;
    bool ok = mprotect((void *)lo, hi - lo, PROT_READ | PROT_WRITE) == 0;
    errno = saved_errno;
    return ok;
}

void *pa_vm_map(size_t nbytes)
{
    return map(NULL, nbytes, PROT_READ | PROT_WRITE, 0);
}

uintptr_t pa_vm_map_heap(uintptr_t hint, size_t nbytes, size_t align)
{
    PA_ASSERT(pa_is_pow2(align) && nbytes % align == 0);
    atomic_fetch_add_explicit(&heap_mmaps, 1, memory_order_relaxed);
    uintptr_t p = (uintptr_t)map((void *)hint, nbytes, PROT_READ | PROT_WRITE, 0);
    if (p == 0 || p % align == 0)
        return p;
    /* The kernel chose a place of its own: take enough to cut an aligned piece out. */
    pa_vm_unmap((void *)p, nbytes);
    if (nbytes + align < nbytes)
        return 0;
    p = (uintptr_t)map(NULL, nbytes + align, PROT_READ | PROT_WRITE, 0);
    if (p == 0)
        return 0;
    uintptr_t base = pa_round_up(p, align);
    if (base > p)
        pa_vm_unmap((void *)p, base - p);
    if (p + align > base)
        pa_vm_unmap((void *)(base + nbytes), p + align - base);
    return base;
}

void pa_vm_unmap(void *addr, size_t nbytes)
{
    int saved_errno = errno;
    /* Fails only when cutting a mapping in two runs out of mappings; then the piece stays reserved. */
    call_munmap(addr, nbytes);
    errno = saved_errno;
}

static bool advise(void *addr, size_t nbytes, int advice)
{
    if (refused(advice))
        return false;
    int saved_errno = errno;
    bool ok = madvise(addr, nbytes, advice) == 0;
    errno = saved_errno;
    return ok;
}

bool pa_vm_release(void *addr, size_t nbytes)
{
    return !injected() && advise(addr, nbytes, MADV_DONTNEED);
}

size_t pa_vm_release_inside(void *addr, size_t nbytes)
{
    uintptr_t os_page = pa_vm_page_size_bytes();
    uintptr_t from = pa_round_up((uintptr_t)addr, os_page), to = pa_round_down((uintptr_t)addr + nbytes, os_page);
    return from < to && pa_vm_release((void *)from, to - from) ? to - from : 0;
}

pa_vm_given pa_vm_release_lazily(void *addr, size_t nbytes)
{
    if (injected())
        return PA_VM_REFUSED;
    if (advise(addr, nbytes, MADV_FREE))
        return PA_VM_LAZY;
    return advise(addr, nbytes, MADV_DONTNEED) ? PA_VM_ZEROED : PA_VM_REFUSED;
}

void pa_vm_huge(void *addr, size_t nbytes, bool want)
{
    int saved_errno = errno;
    madvise(addr, nbytes, want ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved_errno;
}

static void *map_sealed(int fd, size_t nbytes)
{
    if (injected() || fchmod(fd, S_IRUSR | S_IWUSR) != 0 || ftruncate(fd, (off_t)nbytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return NULL;
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (madvise(p, nbytes, MADV_DONTFORK) == 0) {
        madvise(p, nbytes, MADV_DONTDUMP);
        return p;
    }
    pa_vm_unmap(p, nbytes);
    return NULL;
}

void *pa_vm_map_shared(const char *name, size_t nbytes, int *fd, int *error)
{
    int saved_errno = errno;
    errno = ENOMEM;
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *p = *fd < 0 ? NULL : map_sealed(*fd, nbytes);
    *error = p ? 0 : errno;
    if (!p && *fd >= 0)
        close(*fd);
    errno = saved_errno;
    return p;
}

/* PAGEMAP_SCAN of /proc/self/pagemap, by hand: the headers of many systems are older than their kernels. It needs no
 * privilege, unlike the frame numbers of pagemap and kpageflags. */
typedef struct pagemap_region {
    uint64_t start, end, categories;
} pagemap_region;

typedef struct pagemap_scan {
    uint64_t size, flags, start, end, walk_end, regions, region_count, pages_max;
    uint64_t inverted, all_of, any_of, wanted;
} pagemap_scan;

#define PAGEMAP_SCAN_CALL _IOWR('f', 16, pagemap_scan)
#define PAGEMAP_IS_HUGE ((uint64_t)1 << 6)

bool pa_vm_next_huge(uintptr_t from, uintptr_t to, uintptr_t *from_out, uintptr_t *to_out)
{
    int saved_errno = errno, fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    pagemap_region found = {0};
    pagemap_scan scan = {
        .size = sizeof scan,
        .start = from,
        .end = to,
        .regions = (uintptr_t)&found,
        .region_count = 1,
        .all_of = PAGEMAP_IS_HUGE,
        .wanted = PAGEMAP_IS_HUGE,
    };
    bool any = fd >= 0 && from < to && ioctl(fd, PAGEMAP_SCAN_CALL, &scan) == 1;
    if (fd >= 0)
        close(fd);
    errno = saved_errno;
    *from_out = found.start;
    *to_out = found.end;
    return any;
}

uint64_t pa_vm_heap_mmaps(void)
{
    return atomic_load_explicit(&heap_mmaps, memory_order_relaxed);
}
