/* mark.c - the marker's inner loop.
 *
 * Owns nothing; a marker belongs to one thread.  Marks are set with an atomic OR, everything else is read
 * only: slots with acquire, so that an object's contents and pointer bits (written before it was published
 * with release) are seen.
 *
 * What costs is the cache misses of a random graph: mark bit and object, two lines that nobody has touched
 * (and pointer bits, where a span's objects are of several types).  An entry taken from the work stack therefore
 * waits in a ring in front of the scan, with the lines prefetched; by the time its turn comes, they are there (Cher,
 * Hosking, Vitek, "Software prefetching for mark-sweep garbage collection", ASPLOS 2004).  Everything else about
 * a pointer comes from the side tables, which are small (heap/gcside.h).  docs/decisions/008 has the figures.
 *
 * Pointers within a span do not go that way: what was allocated together is often linked together, so an object that
 * leads to another of its span takes the marker through all of the span that can be reached without leaving it
 * (scan_near; decision 033).  The ring and the work buffers hold the pointers between spans.  Go's markers queue spans
 * instead of objects (runtime/mgcmark_greenteagc.go) to the same end, and let marks gather in a span before it is
 * scanned, which ours do not wait for.
 *
 * Objects above 128 KiB are scanned in oblets, so that several markers share them and a slice stays short
 * (Go: runtime/mgcmark.go).
 */
#include "gc/mark.h"

#include "base/bits.h"
#include "world/proc.h"

enum { RING = 32 /* bits of a uint32_t */, NEAR = 128 /* of one span, not yet visited */ };
#define OBLET_BYTES ((size_t)128 * 1024)

/* An object on its way through the ring, and what its span is like. */
typedef struct PA_ALIGNED(64) pending {
    uintptr_t base;
    uint64_t *word;
    uint64_t mask;          /* its pointers */
    uint16_t object_bytes;  /* 0: large */
    uint16_t scan_bytes;    /* 0: pointer-free, or awkward */
    uint8_t bit_idx;        /* in *word */
    bool awkward;           /* large, conservative, or the pointers are not one mask's */
    uint32_t span_bytes;    /* that objects like it may lie in; 0: it is awkward */
    uintptr_t span_base;
    uint64_t *span_bits;    /* the mark bits of its objects */
    uint32_t magic;         /* pa_class_shape */
} pending;

/* ---- Scanning ---- */

PA_INLINE void scan_slot(pa_marker *m, const uintptr_t *slot)
{
    uintptr_t value = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (pa_gcwork_may_point(value))
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

/* Marked before; the object is large, or its pointers are not one mask's. */
static PA_NOINLINE void scan_awkward(pa_marker *m, uintptr_t base)
{
    pa_objref o;
    bool ok = pa_object_resolve(base, &o);
    PA_CHECK(ok);
    size_t nbytes = pa_object_slot_bytes(&o);
    if (!o.size_class)
        m->marked_bytes += nbytes;
    if (o.kind == PA_KIND_NOSCAN)
        return;
    for (size_t at = OBLET_BYTES; at < nbytes; at += OBLET_BYTES)
        pa_gcwork_put(m->work, (base + at) | PA_OBLET_BIT);
    scan_long(m, o.kind, pa_object_layout(&o), base, base + (nbytes < OBLET_BYTES ? nbytes : OBLET_BYTES));
}

/* ---- The work buffer in use, as a stack in two registers ---- */

/* Its count is true only while it is closed. */
typedef struct stack {
    uintptr_t *top, *low;
} stack;

PA_INLINE stack open_stack(const pa_gcwork *w)
{
    uintptr_t *low = w->current->entries;
    return (stack){low + w->current->count, low};
}

PA_INLINE void close_stack(const pa_gcwork *w, stack s) { w->current->count = (uint64_t)(s.top - s.low); }

static PA_NOINLINE stack push_slow(pa_gcwork *w, stack s, uintptr_t entry)
{
    close_stack(w, s);
    pa_gcwork_put_slow(w, entry);
    return open_stack(w);
}

PA_INLINE stack push(pa_gcwork *w, stack s, uintptr_t entry)
{
    if (PA_UNLIKELY(s.top == s.low + PA_WORKBUF_ENTRIES))
        return push_slow(w, s, entry);
    *s.top++ = entry;
    return s;
}

/* With an entry, if there is one here or in the pool. */
static PA_NOINLINE stack fill_slow(pa_gcwork *w, stack s)
{
    close_stack(w, s);
    uintptr_t entry = pa_gcwork_get_slow(w);
    if (entry)
        pa_gcwork_put(w, entry);
    return open_stack(w);
}

/* ---- The loop ---- */

/* Sets the mark; true when it was clear. Two markers that come at once may both be told so and both scan, which
 * finds nothing new, and count its bytes twice, which is rare; a large object must be cut into oblets once, so there
 * it matters who was first. */
PA_INLINE bool mark(const pending *p)
{
    uint64_t bit = (uint64_t)1 << p->bit_idx;
    if (__atomic_load_n(p->word, __ATOMIC_RELAXED) & bit)
        return false;
    if (PA_UNLIKELY(p->awkward))
        return pa_mark_set(p->word, bit);
    __atomic_fetch_or(p->word, bit, __ATOMIC_RELAXED);
    return true;
}

/* Resolves an entry into a ring slot and asks for its lines. False when it is no object. */
PA_INLINE bool prepare(const pa_marker *m, uintptr_t entry, pending *p)
{
    pa_objref o;
    if (PA_UNLIKELY(!pa_object_resolve(entry, &o)))
        return false;
    pa_class_shape shape = pa_class_shapes[o.size_class];
    p->span_base = o.span_base;
    p->span_bits = pa_gcside_bits(o.side, m->plane, o.size_class, o.span_base);
    p->span_bytes = (uint32_t)shape.objects * shape.object_bytes;
    p->magic = shape.magic;
    p->base = o.base;
    p->word = p->span_bits + o.idx / 64;
    p->bit_idx = o.idx % 64;
    p->object_bytes = o.object_bytes;
    __builtin_prefetch(p->word, 1);
    if (o.kind == PA_KIND_NOSCAN) {
        p->mask = 0;
        p->scan_bytes = 0;
        p->awkward = o.size_class == 0;
        return true;
    }
    __builtin_prefetch((void *)o.base);
    uint32_t layout = pa_object_layout(&o);
    p->mask = pa_layout_masks[layout];
    p->awkward = layout < PA_LAYOUT_FIRST_TYPE;
    p->scan_bytes = o.object_bytes;
    if (PA_UNLIKELY(p->awkward))
        p->scan_bytes = p->span_bytes = 0;
    if (PA_UNLIKELY(layout == PA_LAYOUT_BITMAP))
        __builtin_prefetch(&o.side->pointer_bits[(o.base & (PA_ARENA_BYTES - 1)) >> 9]);
    return true;
}

/* Entries that are no object: an oblet is scanned at once, anything else is a foreign word. */
static PA_NOINLINE stack skip_entry(pa_marker *m, stack s, uintptr_t entry)
{
    close_stack(m->work, s);
    if (entry & PA_OBLET_BIT)
        scan_oblet(m, entry & ~PA_OBLET_BIT);
    return open_stack(m->work);
}

/* Marks gathered for one word. Returns how many of them others set meanwhile. */
PA_INLINE uint32_t set_marks(uint64_t *word, uint64_t bits)
{
    uint64_t twice = bits ? __atomic_fetch_or(word, bits, __ATOMIC_RELAXED) & bits : 0;
    return PA_UNLIKELY(twice != 0) ? pa_popcount64(twice) : 0;
}

/* Goes on from the object of a slot, which is marked, at its pointers of mask: one leads into its own span. What can be
 * reached there without leaving the span is marked and scanned now, depth first. What was allocated together is often
 * linked together; then the next object is on the same line or the next, its mark in the same word, and nothing has to
 * be looked up or written to the work buffer. Marks of one word are set together: who comes meanwhile scans in vain.
 *
 * The layout still holds: objects of another one that came since are marked, and that is seen by who found a pointer to
 * one (acquire). */
static PA_NOINLINE stack scan_near(pa_marker *m, stack s, const pending *p, uint64_t mask)
{
    const uintptr_t span_base = p->span_base;
    const uint32_t span_bytes = p->span_bytes, object_bytes = p->object_bytes;
    uintptr_t near[NEAR], from = p->base, next;
    uint32_t count = 0, objects = 0;
    uint64_t *word = p->word, bits = 0;
    for (;;) {
        next = 0; /* the last one found goes on without a detour through memory */
        for (; mask; mask &= mask - 1) {
            uintptr_t value = __atomic_load_n((const uintptr_t *)from + pa_ctz64(mask), __ATOMIC_ACQUIRE);
            if (value - span_base < span_bytes && PA_LIKELY(count < NEAR)) {
                if (next)
                    near[count++] = next;
                next = value;
            } else if (pa_gcwork_may_point(value)) {
                s = push(m->work, s, value);
            }
        }
        uint32_t idx;
        for (;; next = 0) {
            if (!next) {
                if (count == 0)
                    goto done;
                next = near[--count];
            }
            idx = (uint32_t)((next - span_base) * p->magic >> 32);
            if (p->span_bits + idx / 64 != word) {
                objects -= set_marks(word, bits);
                word = p->span_bits + idx / 64;
                bits = 0;
            }
            if (!((__atomic_load_n(word, __ATOMIC_RELAXED) | bits) >> idx % 64 & 1))
                break;
        }
        bits |= (uint64_t)1 << idx % 64;
        objects++;
        mask = p->mask;
        from = next;
        if (PA_UNLIKELY(idx * object_bytes != next - span_base)) /* a branch, so that nobody waits for idx */
            from = span_base + idx * object_bytes;
    }
done:
    objects -= set_marks(word, bits);
    m->marked_bytes += (uint64_t)objects * object_bytes;
    m->scanned_bytes += (uint64_t)objects * p->scan_bytes;
    return s;
}

/* Marks and scans the object of a slot; *far: and much more than that. */
PA_INLINE stack visit(pa_marker *m, stack s, const pending *p, bool *far)
{
    *far = false;
    if (!mark(p))
        return s;
    m->marked_bytes += p->object_bytes;
    m->scanned_bytes += p->scan_bytes;
    const uintptr_t *from = (const uintptr_t *)p->base;
    for (uint64_t mask = p->mask; mask; mask &= mask - 1) {
        uintptr_t value = __atomic_load_n(from + pa_ctz64(mask), __ATOMIC_ACQUIRE);
        if (!pa_gcwork_may_point(value))
            continue;
        if (PA_UNLIKELY(value - p->span_base < p->span_bytes)) {
            *far = true;
            return scan_near(m, s, p, mask);
        }
        s = push(m->work, s, value);
    }
    if (PA_UNLIKELY(p->awkward)) {
        close_stack(m->work, s);
        scan_awkward(m, p->base);
        s = open_stack(m->work);
    }
    return s;
}

/* Once around the slots in use: each one's object is marked and scanned and the slot filled again. Then the empty
 * ones are filled as far as there is work, and while scanned_bytes is below end: oblets are scanned on the way. Returns
 * the slots in use; *dry: there is no more work here and in the pool. */
PA_INLINE uint32_t lap(pa_marker *m, pending ring[RING], uint32_t in_use, uint64_t end, bool *dry)
{
    stack s = open_stack(m->work);
    for (uint32_t left = in_use; left; left &= left - 1) {
        pending *p = &ring[pa_ctz64(left)];
        bool far;
        s = visit(m, s, p, &far);
        if (far && m->scanned_bytes >= end) {
            close_stack(m->work, s);
            return in_use & ~(left & -left);
        }
        if (PA_UNLIKELY(s.top == s.low)) {
            in_use &= ~(left & -left);
            continue;
        }
        uintptr_t entry = *--s.top;
        if (PA_UNLIKELY(!prepare(m, entry, p))) {
            s = skip_entry(m, s, entry);
            in_use &= ~(left & -left);
        }
    }
    for (uint32_t empty = ~in_use; empty;) {
        if (s.top == s.low) {
            s = fill_slow(m->work, s);
            *dry = s.top == s.low;
            if (*dry)
                break;
        }
        uintptr_t entry = *--s.top;
        if (PA_LIKELY(prepare(m, entry, &ring[pa_ctz64(empty)]))) {
            in_use |= empty & -empty;
            empty &= empty - 1;
        } else {
            s = skip_entry(m, s, entry);
            if (m->scanned_bytes >= end)
                break;
        }
    }
    close_stack(m->work, s);
    return in_use;
}

/* Others have nothing to do. Where objects lead through whole spans most of what is grey is in the ring: if that is
 * enough for two, it goes back to the buffer first. Returns the slots in use. */
static PA_NOINLINE uint32_t share(pa_marker *m, const pending ring[RING], uint32_t in_use)
{
    if (!pa_gcwork_share(m->work) && pa_popcount64(in_use) >= PA_SHARE_MIN) {
        for (; in_use; in_use &= in_use - 1)
            pa_gcwork_put(m->work, ring[pa_ctz64(in_use)].base);
        pa_gcwork_share(m->work);
    }
    return in_use;
}

bool pa_mark_drain(pa_marker *m, uint64_t budget_bytes)
{
    if (!m->work->current) {
        uintptr_t entry = pa_gcwork_get_slow(m->work);
        if (!entry)
            return true;
        pa_gcwork_put(m->work, entry);
    }
    pending ring[RING];
    uint64_t end = m->scanned_bytes + budget_bytes;
    /* Pointer-free objects are work, too, though not scan work. */
    int64_t objects_left = (int64_t)(budget_bytes / PA_TINY_BYTES);
    uint32_t in_use = 0;
    do {
        bool dry = false;
        objects_left -= pa_popcount64(in_use);
        in_use = lap(m, ring, in_use, end, &dry);
        if (!in_use && dry)
            return true;
        if (PA_UNLIKELY(m->work->pool->hungry && pa_workpool_full_count(m->work->pool) == 0))
            in_use = share(m, ring, in_use);
    } while (m->scanned_bytes < end && objects_left > 0);
    for (; in_use; in_use &= in_use - 1)
        pa_gcwork_put(m->work, ring[pa_ctz64(in_use)].base);
    return false;
}
