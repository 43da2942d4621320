/* replay.c - repeats what a real program asked of its allocator, from start to end.
 *
 * The flat trace is read in blocks of 256 KiB into a buffer; the clock runs only while a block's
 * operations are carried out, so reading costs nothing.  Blocks are found through a table of slots
 * that is populated before the first operation.  Table and buffer are the replay's only memory besides the
 * allocator's: they are the same for every allocator and are subtracted from the peak RSS (fixed_kib).
 *
 * Memory is used as the program used it, as far as a trace can tell: every new block is written once every
 * 64 bytes over its requested size (that brings its cache lines in and its pages into being), a realloc
 * writes what it added, and a free reads the first byte.  That byte holds a tag of the slot: if it
 * has changed, two live blocks overlapped or a realloc lost content, and the run fails.
 *
 * No warm-up: the trace *is* a program's life, its page faults included.  A trace of several threads is
 * replayed by one thread, in the recorded global order.  Blocks that the program never freed stay.
 */
#include "bench.h"
#include "flat.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 64, BLOCK_OPS = 256 * 1024 / sizeof(flat_op) };

typedef struct entry {
    unsigned char *p;
    uint32_t nbytes;
} entry;

static inline unsigned char tag_of(uint32_t slot)
{
    return (unsigned char)(slot * 37u + 11u);
}

static inline void touch(unsigned char *p, size_t from, size_t to, unsigned char tag)
{
    for (size_t i = from; i < to; i += LINE)
        ((volatile unsigned char *)p)[i] = tag;
}

static inline void check_tag(const entry *e, uint32_t slot)
{
    if (e->nbytes != 0 && __builtin_expect(*(volatile unsigned char *)e->p != tag_of(slot), 0))
        bench_die("replay: the block at %p (slot %u, %u bytes) was overwritten", (void *)e->p, slot,
                  e->nbytes);
}

static inline void put(entry *e, void *p, uint32_t slot, uint32_t nbytes)
{
    if (__builtin_expect(p == NULL && nbytes != 0, 0))
        bench_die("replay: no memory for %u bytes", nbytes);
    touch(p, 0, nbytes, tag_of(slot));
    *e = (entry){p, nbytes};
}

static void carry_out(const flat_op *op, const flat_op *end, entry *table, uint64_t counts[OP_KINDS])
{
    static size_t align =
        16; /* outlives a block: ALIGN may be the last of one, ALIGNED the first of the next */
    for (; op < end; op++) {
        uint32_t kind = op->slot_kind & (OP_KINDS - 1), slot = op->slot_kind >> OP_KIND_BITS;
        entry *e = &table[slot];
        counts[kind]++;
        switch (kind) {
        case OP_MALLOC:
            put(e, malloc(op->nbytes), slot, op->nbytes);
            break;
        case OP_FREE:
            check_tag(e, slot);
            free(e->p);
            break;
        case OP_REALLOC: {
            unsigned char *p = realloc(e->p, op->nbytes != 0 ? op->nbytes : 1);
            if (p == NULL)
                bench_die("replay: no memory to resize to %u bytes", op->nbytes);
            e->p = p;
            if (op->nbytes < e->nbytes)
                e->nbytes = op->nbytes;
            check_tag(e, slot);
            touch(p, e->nbytes, op->nbytes, tag_of(slot));
            e->nbytes = op->nbytes;
            break;
        }
        case OP_CALLOC: {
            unsigned char *p = calloc(1, op->nbytes);
            if (p != NULL && op->nbytes != 0 && *p != 0)
                bench_die("replay: calloc gave memory that is not zero");
            put(e, p, slot, op->nbytes);
            break;
        }
        case OP_ALIGN:
            align = op->nbytes;
            break;
        case OP_ALIGNED: {
            void *p = NULL;
            if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, op->nbytes) != 0)
                p = NULL;
            put(e, p, slot, op->nbytes);
            break;
        }
        default:
            bench_die("replay: unknown operation");
        }
    }
}

static size_t read_full(int fd, void *to, size_t nbytes)
{
    size_t done = 0;
    ssize_t got;
    while (done < nbytes && (got = read(fd, (char *)to + done, nbytes - done)) > 0)
        done += (size_t)got;
    return done;
}

static void run(const bench_options *o, bench_result *r)
{
    flat_header header;
    uint64_t counts[OP_KINDS] = {0};
    int fd = o->trace == NULL ? -1 : open(o->trace, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        bench_die("replay: cannot open %s", o->trace == NULL ? "(no --trace given)" : o->trace);
    if (read_full(fd, &header, sizeof header) != sizeof header || memcmp(header.magic, FLAT_MAGIC, 8) != 0)
        bench_die("replay: %s is not a flat trace", o->trace);
    entry *table = bench_table((header.slots + 1) * sizeof *table);
    flat_op *buffer = bench_table(BLOCK_OPS * sizeof *buffer);

    uint64_t left = o->ops != 0 && o->ops < header.ops ? o->ops : header.ops; /* --ops: only the beginning */
    while (left != 0) {
        size_t want = left < BLOCK_OPS ? (size_t)left : BLOCK_OPS;
        if (read_full(fd, buffer, want * sizeof(flat_op)) != want * sizeof(flat_op))
            bench_die("replay: %s is cut off", o->trace);
        for (size_t i = 0; i < want; i++)
            if (buffer[i].slot_kind >> OP_KIND_BITS >= header.slots)
                bench_die("replay: a slot is out of range");
        bench_start(r);
        carry_out(buffer, buffer + want, table, counts);
        bench_stop(r, want);
        left -= want;
    }
    close(fd);
    r->ops -= counts[OP_ALIGN];
    bench_extra(r, "mallocs", (long long)counts[OP_MALLOC]);
    bench_extra(r, "callocs", (long long)counts[OP_CALLOC]);
    bench_extra(r, "aligned", (long long)counts[OP_ALIGNED]);
    bench_extra(r, "reallocs", (long long)counts[OP_REALLOC]);
    bench_extra(r, "frees", (long long)counts[OP_FREE]);
}

const bench_kernel bench_replay = {
    "replay",
    "repeats the allocations of a recorded program (--trace); one event is an operation",
    run,
    {.threads = 1}};
