/* offheap.c - bump allocation of metadata, and fixed-size free lists.
 *
 * Owns the metadata blocks.  pa_offheap has its own lock (rank OFFHEAP, below it only the kernel); a
 * pa_fixalloc is guarded by its owner's lock.  Blocks are 256 KiB of address space of which only what
 * is used becomes resident.  Invariant: next <= end, and memory in [next, end) was never handed out.
 * Idea: Go's persistentalloc and FixAlloc (runtime/malloc.go, runtime/mfixalloc.go).
 */
#include "sys/offheap.h"

#include "base/assert.h"
#include "base/bits.h"
#include "sys/vm.h"

static const size_t block_bytes = 256 * PA_KIB;
enum { PAGES_AT_ONCE = 16 };

void *pa_offheap_alloc(pa_offheap *o, size_t nbytes, size_t align)
{
    PA_ASSERT(pa_is_pow2(align) && align <= 65536);
    if (nbytes >= block_bytes) {
        size_t rounded = pa_round_up(nbytes, pa_vm_page_size_bytes());
        void *p = pa_vm_map(rounded);
        if (p) {
            pa_lock_acquire(&o->lock);
            pa_owner_add(&o->sys_bytes, rounded);
            pa_lock_release(&o->lock);
        }
        return p;
    }
    pa_lock_acquire(&o->lock);
    uintptr_t p = pa_round_up(o->next, align);
    if (o->next == 0 || p + nbytes > o->end) {
        p = (uintptr_t)pa_vm_map(block_bytes);
        if (p) {
            o->end = p + block_bytes;
            pa_owner_add(&o->sys_bytes, block_bytes);
        }
    }
    if (p)
        o->next = p + nbytes;
    pa_lock_release(&o->lock);
    return (void *)p;
}

/* The last word of an object: while it is free the link, while it is in use its page. */
static void **word_of(const pa_fixalloc *f, void *object)
{
    return (void **)((char *)object + f->object_bytes - sizeof(void *));
}

/* ---- Objects by page ---- */

static void push(pa_fixpage **list, pa_fixpage *p)
{
    p->next = *list;
    p->prev = NULL;
    if (*list)
        (*list)->prev = p;
    *list = p;
}

static void take_out(pa_fixpage **list, pa_fixpage *p)
{
    if (p->prev)
        p->prev->next = p->next;
    else
        *list = p->next;
    if (p->next)
        p->next->prev = p->prev;
}

static size_t objects_in_page(const pa_fixalloc *f)
{
    return pa_vm_page_size_bytes() / f->object_bytes;
}

static bool is_full(const pa_fixalloc *f, const pa_fixpage *p)
{
    return !p->free && p->carved_count == objects_in_page(f);
}

/* Pages come several at a time, so that the records lie close together. */
static pa_fixpage *new_page(pa_fixalloc *f, pa_offheap *o)
{
    size_t os_page = pa_vm_page_size_bytes();
    /* Before the pages: the first lies by what else a small program needs. Kept if there are none. */
    if (!f->record && !(f->record = pa_offheap_alloc(o, sizeof *f->record, _Alignof(pa_fixpage))))
        return NULL;
    if (f->pages_left == 0) {
        char *pages = pa_offheap_alloc(o, PAGES_AT_ONCE * os_page, os_page);
        if (!pages)
            return NULL;
        f->next_page = pages;
        f->pages_left = PAGES_AT_ONCE;
    }
    pa_fixpage *p = f->record;
    f->record = NULL;
    p->base = f->next_page;
    f->next_page += os_page;
    f->pages_left--;
    return p;
}

/* A page with an object to be had, on the list `some`. */
static pa_fixpage *usable_page(pa_fixalloc *f, pa_offheap *o)
{
    if (f->some)
        return f->some;
    pa_fixpage **from = f->idle ? &f->idle : &f->bare, *p = *from;
    if (p)
        take_out(from, p);
    else if (!(p = new_page(f, o)))
        return NULL;
    push(&f->some, p);
    return p;
}

static void *alloc_by_page(pa_fixalloc *f, pa_offheap *o)
{
    PA_ASSERT(f->object_bytes % f->align == 0 && objects_in_page(f) > 0);
    pa_fixpage *p = usable_page(f, o);
    if (!p)
        return NULL;
    void *object = p->free;
    if (object) {
        p->free = *word_of(f, object);
    } else {
        object = p->base + p->carved_count++ * f->object_bytes;
        pa_owner_add(&f->total_count, 1);
    }
    *word_of(f, object) = p;
    p->inuse_count++;
    if (is_full(f, p))
        take_out(&f->some, p);
    return object;
}

static void free_by_page(pa_fixalloc *f, void *object)
{
    pa_fixpage *p = *word_of(f, object);
    if (!is_full(f, p))
        take_out(&f->some, p);
    *word_of(f, object) = p->free;
    p->free = object;
    p->inuse_count--;
    push(p->inuse_count ? &f->some : &f->idle, p);
}

size_t pa_fixalloc_release(pa_fixalloc *f, pa_lock *lock, size_t most_bytes)
{
    size_t released_bytes = 0, os_page = pa_vm_page_size_bytes();
    bool ok = true;
    pa_lock_acquire(lock);
    for (pa_fixpage *p; ok && released_bytes < most_bytes && (p = f->idle) != NULL;
         released_bytes += ok ? os_page : 0) {
        take_out(&f->idle, p);
        pa_lock_release(lock);
        ok = pa_vm_release(p->base, os_page);
        pa_lock_acquire(lock);
        if (ok) {
            pa_owner_add(&f->total_count, -(uint64_t)p->carved_count);
            p->carved_count = 0;
            p->free = NULL;
        }
        push(ok ? &f->bare : &f->idle, p);
    }
    pa_lock_release(lock);
    return released_bytes;
}

/* ---- Both kinds ---- */

static void *alloc_singly(pa_fixalloc *f, pa_offheap *o)
{
    void *object = f->free;
    if (object) {
        f->free = *word_of(f, object);
    } else if ((object = pa_offheap_alloc(o, f->object_bytes, f->align)) != NULL) {
        pa_owner_add(&f->total_count, 1);
    }
    return object;
}

void *pa_fixalloc_alloc_locked(pa_fixalloc *f, pa_offheap *o)
{
    void *object = f->by_page ? alloc_by_page(f, o) : alloc_singly(f, o);
    if (object)
        pa_owner_add(&f->inuse_count, 1);
    return object;
}

void pa_fixalloc_free_locked(pa_fixalloc *f, void *object)
{
    pa_owner_add(&f->inuse_count, -1);
    if (f->by_page) {
        free_by_page(f, object);
        return;
    }
    *word_of(f, object) = f->free;
    f->free = object;
}
