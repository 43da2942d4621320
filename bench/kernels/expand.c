/* expand.c - not a workload: turns a compact trace (already decompressed) into the flat form.
 *
 * The format is described in pyalloc/_bench/traces/FORMAT.md; trace.py is the same decoder in Python and
 * a test compares the two.  The file is not trusted: every read is bounded, every reference is checked, and
 * whatever does not fit ends with a message and exit code 3.  Slots follow from the order of events alone:
 * an allocation takes the slot freed last, or a new one.
 */
#include "bench.h"
#include "flat.h"

#include <stdio.h>
#include <string.h>

enum { HEADER = 64, FIELDS = 6 };
#define COMPACT_MAGIC "PATRACE1"
#define MAX_SLOTS (1u << (32 - OP_KIND_BITS))
#define DEAD UINT32_MAX

typedef struct column {
    const unsigned char *at, *end;
    const char *name;
} column;

static uint64_t load_u64(const unsigned char *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static uint64_t take_varint(column *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (c->at == c->end)
            bench_die("trace: the column of %s ends too early", c->name);
        unsigned char byte = *c->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    bench_die("trace: a number in the column of %s is too long", c->name);
}

static int64_t take_signed(column *c)
{
    uint64_t z = take_varint(c);
    return (int64_t)(z >> 1) ^ -(int64_t)(z & 1);
}

static unsigned char *read_whole(const char *path, size_t *length)
{
    FILE *in = path == NULL ? NULL : fopen(path, "rb");
    if (in == NULL || fseek(in, 0, SEEK_END) != 0)
        bench_die("trace: cannot open %s", path == NULL ? "(no --trace given)" : path);
    long size = ftell(in);
    rewind(in);
    unsigned char *data = malloc(size > 0 ? (size_t)size : 1);
    if (size < 0 || data == NULL || fread(data, 1, (size_t)size, in) != (size_t)size)
        bench_die("trace: cannot read %s", path);
    fclose(in);
    *length = (size_t)size;
    return data;
}

static void put(FILE *out, uint32_t slot, unsigned kind, uint64_t nbytes, uint64_t *ops)
{
    flat_op op = {slot << OP_KIND_BITS | kind, (uint32_t)nbytes};
    if (nbytes > UINT32_MAX)
        bench_die("trace: a size of %llu bytes is too large", (unsigned long long)nbytes);
    if (fwrite(&op, sizeof op, 1, out) != 1)
        bench_die("trace: cannot write the flat file");
    ++*ops;
}

static void run(const bench_options *o, bench_result *r)
{
    size_t length;
    unsigned char *data = read_whole(o->trace, &length);
    uint64_t field[FIELDS];
    if (length < HEADER || memcmp(data, COMPACT_MAGIC, 8) != 0)
        bench_die("trace: %s is not a trace", o->trace);
    for (int i = 0; i < FIELDS; i++)
        field[i] = load_u64(data + 8 + 8 * i);
    uint64_t events = field[0], left = length - HEADER;
    const unsigned char *at = data + HEADER;
    column columns[4] = {{.name = "metadata"}, {.name = "kinds"}, {.name = "sizes"}, {.name = "references"}};
    static const int field_of[4] = {5, 2, 3, 4};
    for (int i = 0; i < 4; i++) {
        uint64_t bytes = field[field_of[i]];
        if (bytes > left)
            bench_die("trace: the column of %s is cut off", columns[i].name);
        columns[i].at = at;
        columns[i].end = at + bytes;
        at += bytes;
        left -= bytes;
    }
    column *kinds = &columns[1], *sizes = &columns[2], *references = &columns[3];
    if ((uint64_t)(kinds->end - kinds->at) != events)
        bench_die("trace: %llu events but another number of kinds", (unsigned long long)events);

    uint32_t *slot_of = malloc((events + 1) * sizeof *slot_of); /* by birth; DEAD once freed */
    uint32_t *free_slots = malloc((events + 1) * sizeof *free_slots);
    FILE *out = o->output == NULL ? NULL : fopen(o->output, "wb");
    flat_header header = {FLAT_MAGIC, 0, 0, {0}};
    if (slot_of == NULL || free_slots == NULL)
        bench_die("trace: no memory for %llu events", (unsigned long long)events);
    if (out == NULL || fwrite(&header, sizeof header, 1, out) != 1)
        bench_die("trace: cannot write %s", o->output == NULL ? "(no --output given)" : o->output);

    uint64_t births = 0, last = 0, spare = 0;
    bench_start(r);
    for (uint64_t e = 0; e < events; e++) {
        unsigned kind = *kinds->at & 7, detail = *kinds->at >> 3;
        kinds->at++;
        if (kind == OP_THREAD) {
            take_varint(references);
            continue;
        }
        if (kind == OP_REALLOC || kind == OP_FREE) {
            uint64_t birth = last + (uint64_t)take_signed(references);
            if (birth >= births || slot_of[birth] == DEAD)
                bench_die("trace: event %llu refers to a block that is not alive", (unsigned long long)e);
            last = birth;
            put(out, slot_of[birth], kind, kind == OP_REALLOC ? take_varint(sizes) : 0, &header.ops);
            if (kind == OP_FREE) {
                free_slots[spare++] = slot_of[birth];
                slot_of[birth] = DEAD;
            }
            continue;
        }
        if (kind > OP_ALIGNED)
            bench_die("trace: event %llu is of unknown kind %u", (unsigned long long)e, kind);
        uint32_t slot = spare != 0 ? free_slots[--spare] : (uint32_t)header.slots++;
        if (slot >= MAX_SLOTS)
            bench_die("trace: too many blocks alive");
        slot_of[births++] = slot;
        if (kind == OP_ALIGNED)
            put(out, slot, OP_ALIGN, (uint64_t)1 << detail, &header.ops);
        put(out, slot, kind, take_varint(sizes), &header.ops);
    }
    bench_stop(r, events);
    if (fseek(out, 0, SEEK_SET) != 0 || fwrite(&header, sizeof header, 1, out) != 1 || fclose(out) != 0)
        bench_die("trace: cannot write %s", o->output);
    bench_extra(r, "slots", (long long)header.slots);
    bench_extra(r, "flat_ops", (long long)header.ops);
    free(free_slots);
    free(slot_of);
    free(data);
}

const bench_kernel bench_expand = {
    "expand",
    "turns a decompressed trace (--trace) into the flat form (--output) that replay reads",
    run,
    {.threads = 1}};
