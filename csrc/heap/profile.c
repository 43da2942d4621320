/* profile.c - tables of sites, places, strings and records in one mapping.
 *
 * Owns the tables; everything is under `lock` (rank PROFILE, below it only the kernel), which is taken once a sample
 * and once when a sampled block dies, so some thousand times a second at most.  The mapping is made when a profile is
 * first asked for, with room for the most that fits in each table; only what is used becomes resident.  It is never
 * given up, because sampled blocks of an earlier profile may be alive and name records in it.
 *
 * Sites and strings are found by hash tables with linear probing that never shrink: a profile only grows.  What does
 * not fit is counted as lost, never half counted.  To spell out a line of interpreted code costs as much as to unwind a
 * frame; most were seen before, so a walker may name them by a hash of what they are made of, which a small table
 * knows.  Records are type-stable and linked through `weight` while they are free; those of an earlier profile lose
 * their site when the next one begins.
 */
#include "heap/profile.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "sys/cfi.h"
#include "sys/clock.h"
#include "sys/vm.h"

enum {
    SITES = 1 << 16,
    FRAMES = 1 << 21,
    PLACES = 1 << 16,
    STRINGS = 1 << 16,
    STRING_BYTES = 8 << 20,
    RECORDS = 1 << 20,      /* 512 GiB of live blocks at the default rate */
    SLOTS = 1 << 17,        /* of each hash table: at most half full */
    KEYS = 1 << 13,         /* each in one place: a later one takes it */
};

/* The frame that a place has got; key 0: none. */
typedef struct key_of_place {
    uint64_t key, frame;
} key_of_place;

typedef struct record {
    uint64_t weight;        /* free: the next free record */
    uint64_t nbytes;        /* of the block */
    uint32_t site;          /* its number + 1; 0: of an earlier profile */
    uint32_t used;          /* 1: a live block's */
} record;

/* Number + 1, or offset + 1 of strings; 0: empty. */
typedef struct slots {
    uint32_t at[SLOTS];
} slots;

/* In one mapping. What a new profile must find zeroed comes first. */
typedef struct tables {
    slots site_slots, place_slots, string_slots;
    key_of_place keys[KEYS];
    pa_profile_site sites[SITES];
    uint64_t frames[FRAMES];
    pa_profile_place places[PLACES];
    char strings[STRING_BYTES];
    record records[RECORDS];
} tables;

_Atomic uint32_t pa_profile_round;
pa_lock pa_profiling_lock = PA_LOCK_INIT(PROFILING);

static struct {
    pa_lock lock;
    tables *t;                          /* NULL: never asked for */
    uint32_t site_count, frame_count, place_count, string_count, string_bytes;
    uint32_t record_count, free_record; /* ever used; first free one + 1 */
    uint32_t record_limit, site_limit;  /* 0: none */
    _Atomic uint64_t rate, seed;        /* written under lock */
    uint64_t samples, lost, live;
    uint64_t begin_unix_ns, begin_ns, end_ns;
} profile = {.lock = PA_LOCK_INIT(PROFILE)};

static bool is_on(void)
{
    return pa_profile_round_racy() & 1;
}

/* ---- Beginning and ending ---- */

static void forget_locked(void)
{
    tables *t = profile.t;
    if (!t)
        return;
    size_t os_page = pa_vm_page_size_bytes(), used = pa_round_down(offsetof(tables, sites), os_page);
    if (!pa_vm_release(t, used))
        memset(t, 0, used);
    memset((char *)t + used, 0, offsetof(tables, sites) - used);
    for (uint32_t i = 0; i < profile.record_count; i++)
        t->records[i].site = 0;
    profile.site_count = profile.frame_count = profile.place_count = 0;
    profile.string_count = profile.string_bytes = 0;
    profile.samples = profile.lost = 0;
}

static int open_locked(uint64_t rate, uint64_t seed)
{
    if (is_on())
        return EBUSY;
    if (!profile.t && !(profile.t = pa_vm_map(pa_round_up(sizeof(tables), pa_vm_page_size_bytes()))))
        return ENOMEM;
    forget_locked();
    atomic_store_explicit(&profile.rate, rate, memory_order_relaxed);
    atomic_store_explicit(&profile.seed, seed, memory_order_relaxed);
    profile.begin_unix_ns = pa_clock_unix_ns();
    profile.begin_ns = pa_clock_now_ns();
    atomic_fetch_add(&pa_profile_round, 1);
    return 0;
}

int pa_profile_open(uint64_t rate, uint64_t seed)
{
    pa_lock_acquire(&profile.lock);
    int error = open_locked(rate, seed);
    pa_lock_release(&profile.lock);
    return error;
}

bool pa_profile_close(void)
{
    pa_lock_acquire(&profile.lock);
    bool was_on = is_on();
    if (was_on) {
        profile.end_ns = pa_clock_now_ns();
        atomic_fetch_add(&pa_profile_round, 1);
    }
    pa_lock_release(&profile.lock);
    return was_on;
}

void pa_profile_forget(void)
{
    pa_lock_acquire(&profile.lock);
    if (!is_on())
        forget_locked();
    pa_lock_release(&profile.lock);
}

uint64_t pa_profile_rate(void)
{
    return atomic_load_explicit(&profile.rate, memory_order_relaxed);
}

uint64_t pa_profile_seed(void)
{
    uint64_t state = atomic_fetch_add_explicit(&profile.seed, 0x632be59bd9b4e019u, memory_order_relaxed);
    return pa_random_next(&state);
}

/* ---- Finding ---- */

/* Eight bytes a step; good enough for tables of our own words and names. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9fb21c651e98df25u;
    return hash ^ hash >> 32;
}

static uint64_t hash_bytes(const char *text, size_t nbytes)
{
    uint64_t hash = nbytes, word;
    for (; nbytes >= sizeof word; text += sizeof word, nbytes -= sizeof word) {
        memcpy(&word, text, sizeof word);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, text, nbytes);
    return mix(mix(hash, word), nbytes);
}

static bool is_site_locked(const pa_profile_site *s, uint64_t hash, const uint64_t *frames, unsigned depth)
{
    return s->hash == hash && s->depth == depth &&
           memcmp(&profile.t->frames[s->first], frames, depth * sizeof *frames) == 0;
}

static pa_profile_site *new_site_locked(uint64_t hash, const uint64_t *frames, unsigned depth)
{
    uint32_t limit = profile.site_limit ? profile.site_limit : SITES;
    if (profile.site_count >= limit || profile.frame_count + depth > FRAMES)
        return NULL;
    pa_profile_site *s = &profile.t->sites[profile.site_count++];
    *s = (pa_profile_site){.hash = hash, .first = profile.frame_count, .depth = depth};
    memcpy(&profile.t->frames[s->first], frames, depth * sizeof *frames);
    profile.frame_count += depth;
    return s;
}

static pa_profile_site *site_locked(const uint64_t *frames, unsigned depth)
{
    uint64_t hash = depth;
    for (unsigned i = 0; i < depth; i++)
        hash = mix(hash, frames[i]);
    uint32_t *slot;
    for (size_t i = hash;; i++) {
        slot = &profile.t->site_slots.at[i % SLOTS];
        if (*slot == 0)
            break;
        if (is_site_locked(&profile.t->sites[*slot - 1], hash, frames, depth))
            return &profile.t->sites[*slot - 1];
    }
    pa_profile_site *s = new_site_locked(hash, frames, depth);
    if (s)
        *slot = profile.site_count;
    return s;
}

/* Offset + 1, 0: no room. */
static uint32_t string_locked(const char *text, size_t nbytes)
{
    char *strings = profile.t->strings;
    uint32_t *slot, length = (uint32_t)nbytes, have;
    for (size_t i = hash_bytes(text, nbytes);; i++) {
        slot = &profile.t->string_slots.at[i % SLOTS];
        if (*slot == 0)
            break;
        memcpy(&have, strings + *slot - 1, sizeof have);
        if (have == length && memcmp(strings + *slot - 1 + sizeof have, text, nbytes) == 0)
            return *slot;
    }
    if (profile.string_bytes + sizeof length + nbytes > STRING_BYTES || profile.string_count >= STRINGS)
        return 0;
    profile.string_count++;
    *slot = profile.string_bytes + 1;
    memcpy(strings + profile.string_bytes, &length, sizeof length);
    memcpy(strings + profile.string_bytes + sizeof length, text, nbytes);
    profile.string_bytes += sizeof length + length;
    return *slot;
}

static uint64_t place_locked(const pa_profile_place *wanted)
{
    uint64_t hash = mix(mix(wanted->function, wanted->file), (uint64_t)wanted->line << 32 | wanted->function_line);
    uint32_t *slot;
    for (size_t i = hash;; i++) {
        slot = &profile.t->place_slots.at[i % SLOTS];
        if (*slot == 0)
            break;
        if (memcmp(&profile.t->places[*slot - 1], wanted, sizeof *wanted) == 0)
            return PA_PROFILE_PLACE | (*slot - 1);
    }
    if (profile.place_count >= PLACES)
        return 0;
    profile.t->places[profile.place_count] = *wanted;
    *slot = ++profile.place_count;
    return PA_PROFILE_PLACE | (*slot - 1);
}

static key_of_place *slot_of_key(uint64_t key)
{
    return &profile.t->keys[mix(key, 0) % KEYS];
}

uint64_t pa_profile_place_of(const char *function, size_t function_bytes, const char *file, size_t file_bytes,
                             uint32_t line, uint32_t function_line, uint64_t key)
{
    uint64_t frame = 0;
    pa_lock_acquire(&profile.lock);
    if (is_on()) {
        uint32_t name = string_locked(function, function_bytes), path = string_locked(file, file_bytes);
        if (name && path)
            frame = place_locked(&(pa_profile_place){name - 1, path - 1, line, function_line});
        if (frame && key)
            *slot_of_key(key) = (key_of_place){key, frame};
    }
    pa_lock_release(&profile.lock);
    return frame;
}

uint64_t pa_profile_place_by_key(uint64_t key)
{
    uint64_t frame = 0;
    pa_lock_acquire(&profile.lock);
    if (is_on() && key && slot_of_key(key)->key == key)
        frame = slot_of_key(key)->frame;
    pa_lock_release(&profile.lock);
    return frame;
}

/* ---- Blocks ---- */

/* A number + 1, 0: no room. */
static uint32_t new_record_locked(void)
{
    uint32_t limit = profile.record_limit ? profile.record_limit : RECORDS, number = profile.free_record;
    if (profile.live >= limit)
        return 0;
    if (number)
        profile.free_record = (uint32_t)profile.t->records[number - 1].weight;
    else if (profile.record_count < RECORDS)
        number = ++profile.record_count;
    return number;
}

static uint64_t weighted_bytes(const record *r)
{
    return r->nbytes * r->weight / PA_WEIGHT_ONE;
}

static uint32_t add_locked(uint64_t nbytes, const uint64_t *frames, unsigned depth)
{
    uint32_t number = new_record_locked();
    if (!number)
        return 0;
    record *r = &profile.t->records[number - 1];
    pa_profile_site *s = site_locked(frames, depth);
    if (!s) {
        r->weight = profile.free_record;
        profile.free_record = number;
        return 0;
    }
    *r = (record){pa_poisson_weight(nbytes, profile.rate), nbytes, (uint32_t)(s - profile.t->sites) + 1, 1};
    s->alloc_weight += r->weight;
    s->alloc_bytes += weighted_bytes(r);
    profile.live++;
    profile.samples++;
    return number;
}

uint32_t pa_profile_add(uint32_t round, uint64_t nbytes, const uint64_t *frames, unsigned depth)
{
    uint32_t number = 0;
    pa_lock_acquire(&profile.lock);
    if (is_on() && round == pa_profile_round_racy()) {
        number = add_locked(nbytes, frames, depth);
        profile.lost += number == 0;
    }
    pa_lock_release(&profile.lock);
    return number;
}

static void drop_locked(uint32_t number)
{
    record *r = &profile.t->records[number - 1];
    PA_CHECK(r->used);
    if (r->site) {
        pa_profile_site *s = &profile.t->sites[r->site - 1];
        s->free_weight += r->weight;
        s->free_bytes += weighted_bytes(r);
    }
    *r = (record){.weight = profile.free_record};
    profile.free_record = number;
    profile.live--;
}

void pa_profile_drop(uint32_t number)
{
    pa_lock_acquire(&profile.lock);
    drop_locked(number);
    pa_lock_release(&profile.lock);
}

void pa_profile_lose(uint32_t number)
{
    pa_lock_acquire(&profile.lock);
    if (number)
        drop_locked(number);
    profile.lost++;
    pa_lock_release(&profile.lock);
}

/* ---- Reading ---- */

void pa_profile_look(pa_profile_view *out)
{
    pa_lock_acquire(&profile.lock);
    *out = (pa_profile_view){
        .site_count = profile.site_count,
        .rate = profile.rate,
        .samples = profile.samples,
        .lost = profile.lost,
        .live = profile.live,
        .begin_unix_ns = profile.begin_unix_ns,
        .duration_ns = (is_on() ? pa_clock_now_ns() : profile.end_ns) - profile.begin_ns,
    };
    if (profile.t) {
        out->frames = profile.t->frames;
        out->places = profile.t->places;
        out->strings = profile.t->strings;
    }
    pa_lock_release(&profile.lock);
}

size_t pa_profile_copy_sites(pa_profile_site *out, size_t capacity)
{
    pa_lock_acquire(&profile.lock);
    size_t count = profile.site_count < capacity ? profile.site_count : capacity;
    if (count)
        memcpy(out, profile.t->sites, count * sizeof *out);
    pa_lock_release(&profile.lock);
    return count;
}

void pa_profile_limit(uint32_t records, uint32_t sites)
{
    pa_lock_acquire(&profile.lock);
    profile.record_limit = records;
    profile.site_limit = sites;
    pa_lock_release(&profile.lock);
}

/* ---- fork ---- */

void pa_profile_fork_prepare(void)
{
    pa_lock_acquire(&profile.lock);
}

void pa_profile_fork_parent(void)
{
    pa_lock_release(&profile.lock);
}

void pa_profile_fork_child(void)
{
    pa_lock_reset_child(&profile.lock);
    pa_cfi_fork_child();
    /* Not taken before the fork, which would wait for a file to be encoded: its holder, if any, is gone. */
    atomic_store_explicit(&pa_profiling_lock.state, 0, memory_order_relaxed);
}
