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

void *pa_offheap_alloc(pa_offheap *o, size_t nbytes, size_t align)
{
    PA_ASSERT(pa_is_pow2(align) && align <= 4096);
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

static void **link_of(const pa_fixalloc *f, void *object)
{
    return (void **)((char *)object + f->object_bytes - sizeof(void *));
}

void *pa_fixalloc_alloc_locked(pa_fixalloc *f, pa_offheap *o)
{
    void *p = f->free;
    if (p) {
        f->free = *link_of(f, p);
    } else {
        p = pa_offheap_alloc(o, f->object_bytes, f->align);
        if (!p)
            return NULL;
        pa_owner_add(&f->total_count, 1);
    }
    pa_owner_add(&f->inuse_count, 1);
    return p;
}

void pa_fixalloc_free_locked(pa_fixalloc *f, void *object)
{
    *link_of(f, object) = f->free;
    f->free = object;
    pa_owner_add(&f->inuse_count, -1);
}
