/* config.h - the numbers that the mission fixes, build switches, compiler words.
 *
 * Everything above includes this file; it includes nothing of ours.  The run-time page size of the
 * operating system is not here: a "page" is always the allocator's own 8 KiB page.
 */
#ifndef PA_CONFIG_H
#define PA_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PA_KIB ((size_t)1 << 10)
#define PA_MIB ((size_t)1 << 20)
#define PA_GIB ((size_t)1 << 30)

enum {
    PA_ABI_VERSION = 2,

    PA_PAGE_SHIFT = 13,             /* 8 KiB page */
    PA_ARENA_SHIFT = 26,            /* 64 MiB heapArena */
    PA_CHUNK_PAGES_SHIFT = 9,       /* 512 pages = 4 MiB, the leaf of the radix tree */
    PA_CHUNK_SHIFT = PA_CHUNK_PAGES_SHIFT + PA_PAGE_SHIFT,
    PA_CACHE_PAGES = 64,            /* page cache: 512 KiB */
    PA_PAGE_CACHE_LIMIT_PAGES = 16, /* runs shorter than this go through the page cache */
    PA_ADDRESS_BITS = 48,
    PA_USER_ADDRESS_BITS = 47,      /* what Linux hands to a process without a larger hint */

    PA_SUMMARY_LEVELS = 5,
    PA_SUMMARY_LEVEL_BITS = 3,      /* 8 children a node */
    PA_ROOT_SHIFT = 34,             /* a root entry covers 16 GiB */

    PA_SIZE_CLASSES = 67,           /* class 0 = large, 1..66 small */
    PA_TINY_BYTES = 16,             /* one block of the class PA_TINY_CLASS */
    PA_TINY_CLASS = 2,
    PA_CACHE_LINE_BYTES = 64,
};

#define PA_PAGE_BYTES ((size_t)1 << PA_PAGE_SHIFT)
#define PA_ARENA_BYTES ((size_t)1 << PA_ARENA_SHIFT)
#define PA_ARENA_PAGES ((size_t)1 << (PA_ARENA_SHIFT - PA_PAGE_SHIFT))
#define PA_CHUNK_PAGES ((size_t)1 << PA_CHUNK_PAGES_SHIFT)
#define PA_CHUNK_BYTES ((size_t)1 << PA_CHUNK_SHIFT)
#define PA_SMALL_MAX_BYTES ((size_t)32768)
#define PA_SMALL_MAX_STEP8_BYTES ((size_t)1024) /* size -> class table steps by 8 up to here, by 128 above */

/* PYALLOC_BUILD_ASSERTS=0..3 sets PA_ASSERT_LEVEL; see base/assert.h. */
#ifndef PA_ASSERT_LEVEL
#define PA_ASSERT_LEVEL 0
#endif

/* PA_WHITEBOX=1 compiles yield points and fault injection in: test builds only. */
#ifndef PA_WHITEBOX
#define PA_WHITEBOX 0
#endif

#if defined(__SANITIZE_THREAD__)
#define PA_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PA_TSAN 1
#endif
#endif
#ifndef PA_TSAN
#define PA_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define PA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PA_ASAN 1
#endif
#endif
#ifndef PA_ASAN
#define PA_ASAN 0
#endif

#define PA_LIKELY(x) __builtin_expect(!!(x), 1)
#define PA_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PA_NOINLINE __attribute__((noinline))
#define PA_COLD __attribute__((noinline, cold))
#define PA_INLINE static inline __attribute__((always_inline))
/* On declarations of our own data: reached without the global offset table. */
#define PA_HIDDEN __attribute__((visibility("hidden")))
#define PA_EXPORT __attribute__((visibility("default")))
#define PA_ALIGNED(n) __attribute__((aligned(n)))
#define PA_TLS _Thread_local

#endif
