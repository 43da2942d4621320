/* vm.h - address space and pages from the operating system.
 *
 * State of a region, with the function behind each arrow (Go: mem.go, four states):
 *
 *        pa_vm_reserve            pa_vm_commit
 *  none ---------------> reserved -------------> ready --+ pa_vm_release -> ready (zero or lazily free)
 *    ^                       |                     |
 *    +------- pa_vm_unmap ---+---------------------+
 *
 * reserved: reads of a "readable" reservation see zero, writes fault, nothing is charged.
 * ready:    may be read and written; untouched pages read zero and are not resident.
 *
 * All functions are thread-safe and keep errno.  Sizes and addresses must be multiples of the
 * operating system's page size unless said.  Only vm_linux.c includes <sys/mman.h>.
 */
#ifndef PA_VM_H
#define PA_VM_H

#include "base/config.h"

/* The operating system's page size (4, 16 or 64 KiB), read once. */
size_t pa_vm_page_size_bytes(void);

/* Address space that the process may map (RLIMIT_AS); SIZE_MAX when unlimited. */
size_t pa_vm_address_limit_bytes(void);

/* Reserves address space for metadata; NULL when refused. readable: PROT_READ, else PROT_NONE. */
void *pa_vm_reserve(size_t nbytes, bool readable);
/* Makes [addr, addr + nbytes) of a reservation ready; rounds outwards to OS pages; may be called
 * again on ready pages. False when refused (out of memory or of mappings). */
bool pa_vm_commit(void *addr, size_t nbytes);
/* Ready memory for metadata, in one go; NULL when refused. */
void *pa_vm_map(size_t nbytes);
/* Ready heap memory of nbytes aligned to align (a power of two, >= the OS page size), near hint where
 * possible (0: anywhere). Never replaces a mapping. 0 when refused. Counts one heap mmap. */
uintptr_t pa_vm_map_heap(uintptr_t hint, size_t nbytes, size_t align);
void pa_vm_unmap(void *addr, size_t nbytes);
/* Gives the pages back: MADV_DONTNEED (they read zero after). False when the kernel refused. */
bool pa_vm_release(void *addr, size_t nbytes);
/* The same for the whole OS pages inside [addr, addr + nbytes), which may begin and end anywhere; how many bytes. */
size_t pa_vm_release_inside(void *addr, size_t nbytes);
/* pa_vm_release with MADV_FREE: the kernel takes the pages when it needs them, until then they keep their content, and
 * a write keeps them for good. LAZY: may read old data; ZEROED: there is no MADV_FREE here (Linux before 4.5, some
 * file systems' memory), MADV_DONTNEED was used. */
typedef enum pa_vm_given { PA_VM_REFUSED, PA_VM_ZEROED, PA_VM_LAZY } pa_vm_given;
pa_vm_given pa_vm_release_lazily(void *addr, size_t nbytes);
/* Asks for (true) or forbids (false) transparent huge pages in a ready region. Best effort. */
void pa_vm_huge(void *addr, size_t nbytes, bool want);
/* Ready memory that other processes may map, too: an unnamed file of nbytes, readable and writable by its owner only,
 * whose size is sealed, so that nobody can make the mapping fault. It shows as /memfd:<name> in /proc/<pid>/fd, is
 * closed by exec and not mapped in a fork child, which inherits the descriptor, though. NULL with *error, an errno. */
void *pa_vm_map_shared(const char *name, size_t nbytes, int *fd, int *error);
/* The first run in [from, to) that the kernel maps by huge pages: [*from_out, *to_out). False when there is none, or
 * when the kernel cannot say (Linux before 6.7, no /proc). */
bool pa_vm_next_huge(uintptr_t from, uintptr_t to, uintptr_t *from_out, uintptr_t *to_out);
/* mmap calls made for heap memory since the start. */
uint64_t pa_vm_heap_mmaps(void);

/* Test builds (PA_WHITEBOX): the n-th call from now that asks the OS for memory or protection fails,
 * and all after it until set to 0. n = 0 turns injection off; n = 1 is the next call. */
void pa_vm_inject_failure(long nth);
/* Test builds: madvise is refused from now on, all of it or only MADV_FREE (as a kernel without it does). */
typedef enum pa_vm_refusal { PA_VM_REFUSE_NOTHING, PA_VM_REFUSE_MADV_FREE, PA_VM_REFUSE_MADVISE } pa_vm_refusal;
void pa_vm_inject_refusal(pa_vm_refusal refusal);

#endif
