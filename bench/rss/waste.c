/* waste.c - replays a flat trace (bench/kernels/flat.h) on one of the small allocators; prints one JSON
 * object.
 *
 *     waste TRACE DESIGN EVENTS       DESIGN: index in `designs` below; EVENTS: how many, from the beginning
 *
 * A tag in the first and last byte of each block finds blocks that overlap. Internal waste is what blocks
 * occupy beyond what was asked for; the rest of what is held is free space inside pages. Both at the moment
 * when most was asked for.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "flat.h"
#include "observe.h"
#include "sim.h"

#define RESERVED_BYTES ((size_t)64 << 30)

static char *base, *fresh;
static void **page_words;
static uint64_t held_bytes;

/* Given runs, by length in pages, for reuse by the same length: addresses are plenty, but page tables are not. */
enum { RUNS = 4096 };
static char *given[RUNS];

char *sim_take(size_t nbytes, size_t align)
{
    size_t pages = nbytes / SIM_PAGE_BYTES;
    held_bytes += nbytes;
    if (pages < RUNS && given[pages] && (uintptr_t)given[pages] % align == 0) {
        char *p = given[pages];
        given[pages] = *sim_page_word(p);
        return p;
    }
    char *p = (char *)(((uintptr_t)fresh + align - 1) & ~(align - 1));
    fresh = p + nbytes;
    if (fresh > base + RESERVED_BYTES)
        give_up("waste: out of the reserved range");
    return p;
}

void sim_give(char *p, size_t nbytes)
{
    size_t pages = nbytes / SIM_PAGE_BYTES;
    held_bytes -= nbytes;
    if (madvise(p, nbytes, MADV_DONTNEED))
        give_up("madvise");
    if (pages < RUNS) {
        *sim_page_word(p) = given[pages];
        given[pages] = p;
    }
}

uint64_t sim_held_bytes(void)
{
    return held_bytes;
}

void **sim_page_word(const void *p)
{
    return &page_words[(size_t)((const char *)p - base) / SIM_PAGE_BYTES];
}

static void *reserve(size_t nbytes)
{
    void *p = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        give_up("mmap");
    return p;
}

typedef struct entry {
    unsigned char *p;
    uint32_t nbytes;
} entry;

static uint64_t asked, occupied, total;

static unsigned char tag_of(uint32_t slot)
{
    return (unsigned char)(slot * 37u + 11u);
}

static void make(const sim_design *d, entry *e, uint32_t slot, uint32_t nbytes)
{
    *e = (entry){d->take(nbytes), nbytes};
    if (nbytes)
        e->p[0] = e->p[nbytes - 1] = tag_of(slot);
    asked += nbytes;
    total += nbytes;
    occupied += d->cost(nbytes);
}

static void drop(const sim_design *d, entry *e, uint32_t slot)
{
    if (e->nbytes && (e->p[0] != tag_of(slot) || e->p[e->nbytes - 1] != tag_of(slot))) {
        fprintf(stderr, "waste: %s: a block of %u bytes was overwritten\n", d->name, e->nbytes);
        exit(3);
    }
    d->give(e->p, e->nbytes);
    asked -= e->nbytes;
    occupied -= d->cost(e->nbytes);
}

static void resize(const sim_design *d, entry *e, uint32_t slot, uint32_t nbytes)
{
    entry old = *e;
    if (d->cost(nbytes) == d->cost(old.nbytes)) { /* stays where it is */
        asked += (uint64_t)nbytes - old.nbytes;
        total += nbytes;
        e->nbytes = nbytes;
        if (nbytes)
            e->p[0] = e->p[nbytes - 1] = tag_of(slot);
        return;
    }
    make(d, e, slot, nbytes);
    drop(d, &old, slot);
}

int main(int argc, char **argv)
{
    static const sim_design *const designs[] = {&sim_classes, &sim_slab, &sim_buddy, &sim_kr, &sim_region};
    flat_header header;
    FILE *f = argc == 4 ? fopen(argv[1], "rb") : NULL;
    size_t which = argc == 4 ? (size_t)atol(argv[2]) : 99;
    if (!f || which >= sizeof designs / sizeof *designs || fread(&header, sizeof header, 1, f) != 1 ||
        memcmp(header.magic, FLAT_MAGIC, 8) != 0)
        return 2;
    const sim_design *d = designs[which];
    base = fresh = reserve(RESERVED_BYTES);
    page_words = reserve(RESERVED_BYTES / SIM_PAGE_BYTES * sizeof *page_words);
    entry *table = reserve((header.slots + 1) * sizeof *table);
    uint64_t peak_asked = 0, peak_occupied = 0, peak_held = 0, top_held = 0, events = 0;
    for (flat_op op; events < (uint64_t)atoll(argv[3]) && fread(&op, sizeof op, 1, f) == 1;) {
        uint32_t kind = op.slot_kind & (OP_KINDS - 1), slot = op.slot_kind >> OP_KIND_BITS;
        if (slot > header.slots)
            return 2;
        if (kind == OP_MALLOC || kind == OP_CALLOC || kind == OP_ALIGNED)
            make(d, &table[slot], slot, op.nbytes);
        else if (kind == OP_FREE)
            drop(d, &table[slot], slot);
        else if (kind == OP_REALLOC)
            resize(d, &table[slot], slot, op.nbytes);
        else
            continue;
        events++;
        if (asked > peak_asked) {
            peak_asked = asked;
            peak_occupied = occupied;
            peak_held = held_bytes;
        }
        top_held = held_bytes > top_held ? held_bytes : top_held;
    }
    fclose(f);
    printf("{\"design\": \"%s\", \"events\": %llu, \"asked\": %llu, \"occupied\": %llu, \"held\": %llu,"
           " \"top_held\": %llu, \"total\": %llu}\n", d->name, (unsigned long long)events,
           (unsigned long long)peak_asked,
           (unsigned long long)peak_occupied, (unsigned long long)peak_held, (unsigned long long)top_held,
           (unsigned long long)total);
    return 0;
}
