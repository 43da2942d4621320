/* malloc_family.c - the C library's malloc names over the same heap.
 *
 * A shim: no state, no policy.  Takes effect only when the library is preloaded or linked; imported into
 * Python it stays in local scope and interposes nothing.  glibc's "Replacing malloc" lists the names.
 */
#include <errno.h>

#include "base/bits.h"
#include "include/pyalloc.h"
#include "sys/vm.h"

/* Declared here, because the C library's headers attach attributes that a definition must not repeat. */
void *malloc(size_t nbytes);
void free(void *p);
void *calloc(size_t count, size_t nbytes);
void *realloc(void *p, size_t nbytes);
void *reallocarray(void *p, size_t count, size_t nbytes);
void *memalign(size_t align, size_t nbytes);
void *aligned_alloc(size_t align, size_t nbytes);
int posix_memalign(void **out, size_t align, size_t nbytes);
void *valloc(size_t nbytes);
void *pvalloc(size_t nbytes);
size_t malloc_usable_size(void *p);
void cfree(void *p);

PA_EXPORT void *malloc(size_t nbytes)
{
    return pa_malloc(nbytes);
}

PA_EXPORT void free(void *p)
{
    pa_free(p);
}

PA_EXPORT void cfree(void *p)
{
    pa_free(p);
}

PA_EXPORT void *calloc(size_t count, size_t nbytes)
{
    return pa_calloc(count, nbytes);
}

PA_EXPORT void *realloc(void *p, size_t nbytes)
{
    return pa_realloc(p, nbytes);
}

PA_EXPORT void *reallocarray(void *p, size_t count, size_t nbytes)
{
    return pa_reallocarray(p, count, nbytes);
}

PA_EXPORT void *memalign(size_t align, size_t nbytes)
{
    return pa_memalign(align, nbytes);
}

PA_EXPORT void *aligned_alloc(size_t align, size_t nbytes)
{
    return pa_aligned_alloc(align, nbytes);
}

PA_EXPORT int posix_memalign(void **out, size_t align, size_t nbytes)
{
    return pa_posix_memalign(out, align, nbytes);
}

PA_EXPORT void *valloc(size_t nbytes)
{
    return pa_memalign(pa_vm_page_size_bytes(), nbytes);
}

PA_EXPORT void *pvalloc(size_t nbytes)
{
    size_t page = pa_vm_page_size_bytes();
    if (nbytes > SIZE_MAX - page) {
        errno = ENOMEM;
        return NULL;
    }
    return pa_memalign(page, pa_round_up(nbytes ? nbytes : 1, page));
}

PA_EXPORT size_t malloc_usable_size(void *p)
{
    return pa_usable_size(p);
}
