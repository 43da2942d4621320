/* export_release.c - white-box view of heap/pace and heap/release.
 *
 * Test builds only.  Owns the paces that it hands to tests.
 */
#include "export/export_release.h"

#include <stdlib.h>

#include "base/assert.h"
#include "gc/scavenge.h"
#include "sys/vm.h"
#include "world/proc.h"

struct pa_xpace {
    pa_pace pace;
};

pa_xpace *pa_xpace_new(void)
{
    pa_xpace *x = calloc(1, sizeof *x);
    PA_CHECK(x);
    return x;
}

void pa_xpace_delete(pa_xpace *x)
{
    free(x);
}

uint64_t pa_xpace_bytes(pa_xpace *x, uint64_t now_ns, unsigned percent, uint64_t most)
{
    return pa_pace_bytes(&x->pace, now_ns, percent, most);
}

uint64_t pa_xpace_rest_ns(pa_xpace *x, uint64_t now_ns, unsigned percent)
{
    return pa_pace_rest_ns(&x->pace, now_ns, percent);
}

void pa_xpace_spent(pa_xpace *x, uint64_t now_ns, uint64_t work_ns, uint64_t nbytes)
{
    pa_pace_spent(&x->pace, now_ns, work_ns, nbytes);
}

uint64_t pa_xpace_ns_per_mib(const pa_xpace *x)
{
    return x->pace.ns_per_mib;
}

bool pa_xpace_check(const pa_xpace *x)
{
    uint64_t sum = 0;
    for (int i = 0; i < PA_PACE_SLOTS; i++)
        sum += x->pace.work_ns[i];
    return sum == x->pace.total_ns;
}

void pa_xvm_inject_refusal(int refusal)
{
    pa_vm_inject_refusal((pa_vm_refusal)refusal);
}

int pa_xvm_release_lazily(uintptr_t addr, size_t nbytes)
{
    return (int)pa_vm_release_lazily((void *)addr, nbytes);
}

size_t pa_xrelease(size_t goal_bytes)
{
    pa_lock_acquire(&pa_the_heap.decay.lock);
    size_t released_bytes = pa_release_pages(&pa_the_heap, goal_bytes, PA_RELEASE_BACKGROUND);
    pa_lock_release(&pa_the_heap.decay.lock);
    return released_bytes;
}

void pa_xscavenge_enable(void)
{
    pa_scavenge_enable();
}
