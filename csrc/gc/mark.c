/* mark.c - the marker's inner loop.
 *
 * Owns nothing; a marker belongs to one thread.  Marks are set with an atomic OR, everything else is read
 * only: slots with acquire, so that an object's contents and pointer bits (written before it was published
 * with release) are seen.
 *
 * What costs is the cache misses of a random graph: mark bit and object, two lines that nobody has touched
 * (and pointer bits, where a span's objects are of several types).  An entry taken from the work stack
 * therefore waits in a short first-in-first-out ring
 * in front of the scan, with the lines prefetched; by the time it comes out, they are there (Cher,
 * Hosking, Vitek, "Software prefetching for mark-sweep garbage collection", ASPLOS 2004).  Everything else about
 * a pointer comes from the side tables, which are small (heap/gcside.h).
 *
 * Objects above 128 KiB are scanned in oblets, so that several markers share them and a slice stays short
 * (Go: runtime/mgcmark.go).
 */
#include "gc/mark.h"

#include "base/bits.h"
#include "world/proc.h"

enum { RING = 16, SHARE_EVERY = 64 };
#define OBLET_BYTES ((size_t)128 * 1024)

typedef struct pending {
    uintptr_t base;
    uint64_t *word;
    uint64_t bit;
    uint32_t layout;
    uint8_t size_class, kind;
} pending;

/* ---- Scanning ---- */

PA_INLINE void scan_slot(pa_marker *m, const uintptr_t *slot)
{
    uintptr_t value = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (value)
        pa_gcwork_put(m->work, value);
}

PA_INLINE void scan_mask(pa_marker *m, const uintptr_t *from, uint64_t mask)
{
    for (; mask; mask &= mask - 1)
        scan_slot(m, from + pa_ctz64(mask));
}

/* count words at from whose pointer bits start at bit `at` of the arena's bitmap. */
PA_INLINE void scan_words(pa_marker *m, const pa_gcside *side, uintptr_t from, size_t count)
{
    size_t at = (from & (PA_ARENA_BYTES - 1)) >> 3;
    while (count) {
        unsigned shift = at % 64, n = 64 - shift;
        if (n > count)
            n = (unsigned)count;
        uint64_t bits = pa_racy_load(&side->pointer_bits[at / 64]) >> shift & pa_mask64(n);
        scan_mask(m, (uintptr_t *)from, bits);
        from += n * 8;
        at += n;
        count -= n;
    }
}

static void scan_conservative(pa_marker *m, uintptr_t from, uintptr_t to)
{
    for (; from < to; from += 8) {
        uintptr_t value = __atomic_load_n((uintptr_t *)from, __ATOMIC_ACQUIRE);
        pa_objref o;
        if (value && pa_object_resolve(value, &o) && pa_object_is_allocated(&pa_the_heap, &o))
            pa_gcwork_put(m->work, value);
    }
}

void pa_mark_range(pa_marker *m, uintptr_t from, uintptr_t to, bool precise)
{
    m->scanned_bytes += to - from;
    if (!precise) {
        scan_conservative(m, from, to);
        return;
    }
    for (; from < to; from += 8)
        scan_slot(m, (uintptr_t *)from);
}

void pa_mark_rescan_object(pa_marker *m, uintptr_t base, size_t nbytes)
{
    m->scanned_bytes += nbytes;
    scan_conservative(m, base, base + nbytes);
}

/* [from, to) of a marked object, which may cross arenas. */
static void scan_long(pa_marker *m, unsigned kind, uint32_t layout, uintptr_t from, uintptr_t to)
{
    m->scanned_bytes += to - from;
    if (kind == PA_KIND_CONSERVATIVE) {
        scan_conservative(m, from, to);
        return;
    }
    if (layout == PA_LAYOUT_ALL) {
        for (; from < to; from += 8)
            scan_slot(m, (uintptr_t *)from);
        return;
    }
    while (from < to) {
        uintptr_t end = pa_round_down(from, PA_ARENA_BYTES) + PA_ARENA_BYTES;
        if (end > to)
            end = to;
        scan_words(m, pa_gcside_of(from), from, (end - from) / 8);
        from = end;
    }
}

void pa_mark_scan_again(pa_marker *m, const pa_objref *o, uintptr_t from, uintptr_t to)
{
    uint32_t layout = pa_object_layout(o);
    if (o->kind == PA_KIND_SCAN && layout >= PA_LAYOUT_FIRST_TYPE)
        scan_mask(m, (uintptr_t *)o->base, pa_layout_masks[layout]);
    else
        scan_long(m, o->kind, layout, from, to);
}

static PA_NOINLINE void scan_oblet(pa_marker *m, uintptr_t at)
{
    pa_objref o;
    bool ok = pa_object_resolve(at, &o);
    PA_CHECK(ok);
    uintptr_t end = o.base + pa_object_slot_bytes(&o);
    scan_long(m, o.kind, pa_object_layout(&o), at, end - at > OBLET_BYTES ? at + OBLET_BYTES : end);
}

static PA_NOINLINE void scan_large_object(pa_marker *m, const pending *p)
{
    pa_objref o = {.base = p->base, .size_class = 0};
    size_t nbytes = pa_object_slot_bytes(&o);
    m->marked_bytes += nbytes;
    if (p->kind == PA_KIND_NOSCAN)
        return;
    for (size_t at = OBLET_BYTES; at < nbytes; at += OBLET_BYTES)
        pa_gcwork_put(m->work, (p->base + at) | PA_OBLET_BIT);
    scan_long(m, p->kind, p->layout, p->base, p->base + (nbytes < OBLET_BYTES ? nbytes : OBLET_BYTES));
}

PA_INLINE void mark_and_scan(pa_marker *m, const pending *p)
{
    if (!pa_mark_set(p->word, p->bit))
        return;
    if (PA_UNLIKELY(p->size_class == 0)) {
        scan_large_object(m, p);
        return;
    }
    size_t nbytes = pa_class_object_bytes[p->size_class];
    m->marked_bytes += nbytes;
    if (p->kind == PA_KIND_NOSCAN)
        return;
    if (PA_UNLIKELY(p->layout < PA_LAYOUT_FIRST_TYPE)) {
        scan_long(m, p->kind, p->layout, p->base, p->base + nbytes);
        return;
    }
    m->scanned_bytes += nbytes;
    scan_mask(m, (uintptr_t *)p->base, pa_layout_masks[p->layout]);
}

/* ---- The loop ---- */

/* Resolves an entry into a ring slot and asks for its lines. False when it is no object or already marked. */
PA_INLINE bool prepare(const pa_marker *m, uintptr_t entry, pending *p)
{
    pa_objref o;
    if (PA_UNLIKELY(!pa_object_resolve(entry, &o)))
        return false;
    p->base = o.base;
    p->word = pa_object_bit_word(&o, m->plane);
    p->bit = pa_object_bit(&o);
    p->size_class = o.size_class;
    p->kind = o.kind;
    __builtin_prefetch(p->word, 1);
    if (o.kind == PA_KIND_NOSCAN)
        return true;
    __builtin_prefetch((void *)o.base);
    p->layout = pa_object_layout(&o);
    if (PA_UNLIKELY(p->layout == PA_LAYOUT_BITMAP))
        __builtin_prefetch(&o.side->pointer_bits[(o.base & (PA_ARENA_BYTES - 1)) >> 9]);
    return true;
}

bool pa_mark_drain(pa_marker *m, uint64_t budget_bytes)
{
    pending ring[RING];
    unsigned head = 0, count = 0, until_share = SHARE_EVERY;
    uint64_t end = m->scanned_bytes + budget_bytes;
    for (;;) {
        while (count < RING) {
            uintptr_t entry = pa_gcwork_get(m->work);
            if (!entry)
                break;
            if (PA_UNLIKELY(entry & PA_OBLET_BIT))
                scan_oblet(m, entry & ~PA_OBLET_BIT);
            else
                count += prepare(m, entry, &ring[(head + count) % RING]);
        }
        if (!count)
            return true;
        mark_and_scan(m, &ring[head]);
        head = (head + 1) % RING;
        count--;
        if (PA_UNLIKELY(--until_share == 0)) {
            until_share = SHARE_EVERY;
            if (m->work->pool->hungry && pa_workpool_full_count(m->work->pool) == 0)
                pa_gcwork_share(m->work);
            if (m->scanned_bytes >= end)
                break;
        }
    }
    for (; count; count--, head = (head + 1) % RING)
        pa_gcwork_put(m->work, ring[head].base);
    return false;
}
