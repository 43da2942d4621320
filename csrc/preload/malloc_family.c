/* malloc_family.c - those of the C library's malloc names that are not plain aliases (aliases.ld).
 *
 * A shim: no state, no policy.  The names take effect only when the library is preloaded or linked; imported
 * into Python it stays in local scope and interposes nothing.  glibc's "Replacing malloc" lists the names.
 */
#include <errno.h>

#include "base/bits.h"
#include "include/pyalloc.h"
#include "sys/vm.h"

/* Declared here, because the C library's headers attach attributes that a definition must not repeat. */
void *valloc(size_t nbytes);
void *pvalloc(size_t nbytes);

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
