/* cfi.c - unwind rules: read from .eh_frame once an address, kept in a table.
 *
 * Owns the table, which belongs to whoever set `busy`; who finds it set goes another way, so that nobody waits and a
 * signal handler that allocates in the middle of a walk cannot hang.  Rules are kept by return address, which only
 * mean something as long as the code is there: when the loader has unloaded a library since, all are forgotten; code
 * that no module holds (made at run time) is looked up each time.
 *
 * The tables are those that libgcc reads (DWARF 5, section 6.4, with the GNU encodings of the Linux Standard Base).  A
 * program of a few instructions says for each address where the frame ends (the CFA) and where registers are saved.
 * Of these only the frame pointer is followed: with it and the stack pointer the next frame is found.  The result of a
 * program fits into two words.  Anything else than offsets makes a rule UNKNOWN, and the caller asks libgcc.
 */
#include "sys/cfi.h"

#include <link.h>
#include <string.h>

#include "base/atomics.h"
#include "sys/symbols.h"

/* Names and numbers are x86-64's; elsewhere nobody comes here. */

enum { FP = 6, SP = 7, RA = 16 }; /* the registers' numbers in the tables */

typedef enum saved { AS_IT_WAS, AT_OFFSET, NOT_SIMPLE, NOWHERE } saved;

/* A row of the table that the program spells out. */
typedef struct row {
    unsigned base;          /* the CFA is this register + offset */
    bool odd;               /* or something else */
    int64_t offset, fp_offset, ra_offset;
    saved fp, ra;
} row;

enum { RULES = 1 << 10, REMEMBERED = 8, WORD = sizeof(uintptr_t) };

typedef struct rule {
    uintptr_t pc;
    int32_t cfa_offset;
    int16_t fp_offset;      /* from the CFA, in words; 0: as it was */
    uint8_t result;         /* pa_cfi_result */
    bool from_fp;
} rule;

static struct {
    _Atomic uint32_t busy;
    unsigned long long unloaded; /* libraries, as of the last walk */
    _Atomic(pa_cfi_find *) find; /* NULL until prepared; who prepares at the same time writes the same */
    rule rules[RULES];
} the;

/* ---- Numbers ---- */

typedef struct reader {
    const uint8_t *at, *end;
    bool failed;
} reader;

static uint64_t take(reader *r, size_t nbytes)
{
    uint64_t value = 0;
    if ((size_t)(r->end - r->at) < nbytes) {
        r->failed = true;
        r->at = r->end;
        return 0;
    }
    memcpy(&value, r->at, nbytes);
    r->at += nbytes;
    return value;
}

static uint64_t take_uleb(reader *r)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint64_t byte = take(r, 1);
        if (shift < 64)
            value |= (byte & 127) << shift;
        if (!(byte & 128))
            return value;
    }
}

static int64_t take_sleb(reader *r)
{
    uint64_t value = 0, byte;
    unsigned shift = 0;
    do {
        byte = take(r, 1);
        if (shift < 64)
            value |= (byte & 127) << shift;
        shift += 7;
    } while (byte & 128);
    if (shift < 64 && (byte & 64))
        value |= ~(uint64_t)0 << shift;
    return (int64_t)value;
}

static void skip(reader *r, uint64_t nbytes)
{
    if ((uint64_t)(r->end - r->at) < nbytes)
        r->failed = true;
    r->at = r->failed ? r->end : r->at + nbytes;
}

/* Of a pointer in this encoding; 0: of no fixed size. */
static size_t encoded_bytes(unsigned encoding)
{
    static const uint8_t nbytes[16] = {8, 0, 2, 4, 8, 0, 0, 0, 8, 0, 2, 4, 8, 0, 0, 0};
    return (encoding & 0x70) == 0x50 ? 0 : nbytes[encoding & 15];
}

/* ---- Programs ---- */

typedef struct common {
    uint64_t code_align;
    int64_t data_align;
    unsigned encoding;
    bool augmented, signal;
    reader program;
} common;

static bool read_common(const uint8_t *at, common *out)
{
    uint32_t nbytes;
    memcpy(&nbytes, at, sizeof nbytes);
    if (nbytes == 0 || nbytes == UINT32_MAX)
        return false;
    reader r = {at + 4, at + 4 + nbytes, false};
    *out = (common){.encoding = 0};
    take(&r, 4);
    unsigned version = (unsigned)take(&r, 1);
    const char *letters = (const char *)r.at;
    skip(&r, strnlen(letters, (size_t)(r.end - r.at)) + 1);
    if (r.failed || (version != 1 && version != 3))
        return false;
    out->code_align = take_uleb(&r);
    out->data_align = take_sleb(&r);
    if ((version == 1 ? take(&r, 1) : take_uleb(&r)) != RA)
        return false;
    out->augmented = *letters == 'z';
    if (*letters && !out->augmented)
        return false;
    uint64_t size = out->augmented ? take_uleb(&r) : 0;
    const uint8_t *program = r.at + size;
    for (letters += out->augmented; *letters && !r.failed; letters++) {
        if (*letters == 'R') {
            out->encoding = (unsigned)take(&r, 1);
        } else if (*letters == 'P') {
            size_t skipped = encoded_bytes((unsigned)take(&r, 1));
            r.failed |= skipped == 0;
            skip(&r, skipped);
        } else if (*letters == 'L') {
            take(&r, 1);
        } else if (*letters == 'S') {
            out->signal = true;
        } else {
            return false;
        }
    }
    if (r.failed || program > r.end)
        return false;
    out->program = (reader){program, r.end, false};
    return true;
}

static void save(row *now, uint64_t which, saved how, int64_t offset)
{
    if (which == FP) {
        now->fp = how;
        now->fp_offset = offset;
    } else if (which == RA) {
        now->ra = how;
        now->ra_offset = offset;
    }
}

static void restore(row *now, uint64_t which, const row *first)
{
    save(now, which, which == FP ? first->fp : first->ra, which == FP ? first->fp_offset : first->ra_offset);
}

static void define(row *now, uint64_t base, int64_t offset)
{
    now->base = base == FP || base == SP ? (unsigned)base : 0;
    now->offset = offset;
    now->odd = false;
}

/* Runs a program up to the row for `target`, in bytes from the function's beginning. False: there is an instruction
 * that is not known. */
static bool run(reader *r, const common *c, uint64_t target, row *now, const row *first)
{
    row remembered[REMEMBERED];
    unsigned depth = 0;
    uint64_t location = 0, which;
    while (r->at < r->end && !r->failed) {
        unsigned op = (unsigned)take(r, 1), low = op & 63;
        uint64_t advance = 0;
        switch (op & 0xc0 ? op & 0xc0 : op) {
        case 0x40: advance = low; break;                            /* advance_loc */
        case 0x80: save(now, low, AT_OFFSET, (int64_t)take_uleb(r) * c->data_align); break; /* offset */
        case 0xc0: restore(now, low, first); break;                 /* restore */
        case 0x00: break;                                           /* nop */
        case 0x02: advance = take(r, 1); break;
        case 0x03: advance = take(r, 2); break;
        case 0x04: advance = take(r, 4); break;
        case 0x05: which = take_uleb(r); save(now, which, AT_OFFSET, (int64_t)take_uleb(r) * c->data_align); break;
        case 0x06: restore(now, take_uleb(r), first); break;
        case 0x07: save(now, take_uleb(r), NOWHERE, 0); break;      /* undefined */
        case 0x08: save(now, take_uleb(r), AS_IT_WAS, 0); break;    /* same_value */
        case 0x09: which = take_uleb(r); take_uleb(r); save(now, which, NOT_SIMPLE, 0); break; /* register */
        case 0x0a:                                                  /* remember_state */
            if (depth == REMEMBERED)
                return false;
            remembered[depth++] = *now;
            break;
        case 0x0b:                                                  /* restore_state */
            if (depth == 0)
                return false;
            *now = remembered[--depth];
            break;
        case 0x0c: which = take_uleb(r); define(now, which, (int64_t)take_uleb(r)); break; /* def_cfa */
        case 0x0d: define(now, take_uleb(r), now->offset); break;   /* def_cfa_register */
        case 0x0e: now->offset = (int64_t)take_uleb(r); break;      /* def_cfa_offset */
        case 0x0f: now->odd = true; skip(r, take_uleb(r)); break;   /* def_cfa_expression */
        case 0x10:                                                  /* expression, val_expression */
        case 0x16: which = take_uleb(r); skip(r, take_uleb(r)); save(now, which, NOT_SIMPLE, 0); break;
        case 0x11: which = take_uleb(r); save(now, which, AT_OFFSET, take_sleb(r) * c->data_align); break;
        case 0x12: which = take_uleb(r); define(now, which, take_sleb(r) * c->data_align); break;
        case 0x13: now->offset = take_sleb(r) * c->data_align; break;
        case 0x2e: take_uleb(r); break;                             /* GNU_args_size */
        default: return false;
        }
        location += advance * c->code_align;
        if (location > target)
            return true;
    }
    return !r->failed;
}

/* ---- Rules ---- */

static rule unknown(uintptr_t pc)
{
    return (rule){.pc = pc, .result = PA_CFI_UNKNOWN};
}

static rule as_rule(uintptr_t pc, const row *now)
{
    if (now->ra == NOWHERE)
        return (rule){.pc = pc, .result = PA_CFI_END};
    bool fp_simple = now->fp == AS_IT_WAS || now->fp == NOWHERE ||
                     (now->fp == AT_OFFSET && now->fp_offset % WORD == 0 && now->fp_offset < 0 &&
                      now->fp_offset / WORD >= INT16_MIN);
    if (now->odd || now->base == 0 || now->ra != AT_OFFSET || now->ra_offset != -WORD || !fp_simple ||
        now->offset <= 0 || now->offset > INT32_MAX)
        return unknown(pc);
    return (rule){.pc = pc, .cfa_offset = (int32_t)now->offset, .result = PA_CFI_UP, .from_fp = now->base == FP,
                  .fp_offset = now->fp == AT_OFFSET ? (int16_t)(now->fp_offset / WORD) : 0};
}

static rule read_rule(uintptr_t pc)
{
    struct { void *text, *data, *function; } bases = {0};
    common c;
    row first = {.odd = true}, now;
    const uint8_t *entry = the.find((void *)(pc - 1), &bases);
    if (!entry) /* nothing is known of that code: libgcc, too, would end here */
        return (rule){.pc = pc, .result = PA_CFI_END};
    uint32_t nbytes;
    int32_t delta;
    memcpy(&nbytes, entry, sizeof nbytes);
    memcpy(&delta, entry + 4, sizeof delta);
    if (nbytes == UINT32_MAX || !read_common(entry + 4 - delta, &c) || c.signal || !encoded_bytes(c.encoding))
        return unknown(pc);
    reader r = {entry + 8, entry + 4 + nbytes, false};
    skip(&r, 2 * encoded_bytes(c.encoding));
    if (c.augmented)
        skip(&r, take_uleb(&r));
    uint64_t target = pc - 1 - (uintptr_t)bases.function;
    if (!run(&c.program, &c, UINT64_MAX, &first, &first))
        return unknown(pc);
    now = first;
    return run(&r, &c, target, &now, &first) ? as_rule(pc, &now) : unknown(pc);
}

static rule rule_of(uintptr_t pc)
{
    rule *kept = &the.rules[(pc ^ pc >> 10) % RULES];
    if (kept->pc == pc)
        return *kept;
    rule found = read_rule(pc);
    pa_code_range module = pa_module_range((const void *)pc);
    if (pa_code_range_has(&module, pc))
        *kept = found;
    return found;
}

/* ---- Walks ---- */

static int read_unloaded(struct dl_phdr_info *info, size_t size, void *count)
{
    (void)size;
    *(unsigned long long *)count = info->dlpi_subs;
    return 1;
}

void pa_cfi_prepare(pa_cfi_find *find)
{
    atomic_store_explicit(&the.find, find, memory_order_release);
}

bool pa_cfi_begin(void)
{
    if (!PA_KNOWS_REGISTERS || !atomic_load_explicit(&the.find, memory_order_acquire) ||
        atomic_exchange_explicit(&the.busy, 1, memory_order_acquire))
        return false;
    unsigned long long unloaded = 0;
    dl_iterate_phdr(read_unloaded, &unloaded);
    if (unloaded != the.unloaded) {
        memset(the.rules, 0, sizeof the.rules);
        the.unloaded = unloaded;
    }
    return true;
}

void pa_cfi_end(void)
{
    atomic_store_explicit(&the.busy, 0, memory_order_release);
}

void pa_cfi_fork_child(void)
{
    if (!atomic_load_explicit(&the.busy, memory_order_relaxed))
        return;
    memset(the.rules, 0, sizeof the.rules); /* who was at it may have been half-way */
    pa_cfi_end();
}

pa_cfi_result pa_cfi_step(pa_cursor *c)
{
    rule r = rule_of(c->pc);
    if (r.result != PA_CFI_UP)
        return (pa_cfi_result)r.result;
    uintptr_t cfa = (r.from_fp ? c->fp : c->sp) + (uintptr_t)(intptr_t)r.cfa_offset;
    if (cfa <= c->sp || cfa % WORD != 0)
        return PA_CFI_UNKNOWN;
    const uintptr_t *frame = (const uintptr_t *)cfa;
    c->pc = frame[-1];
    if (r.fp_offset)
        c->fp = frame[r.fp_offset];
    c->sp = cfa;
    return c->pc ? PA_CFI_UP : PA_CFI_END;
}
