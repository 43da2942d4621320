/* profile_proto.c - encoding the heap profile (github.com/google/pprof, proto/profile.proto).
 *
 * Owns nothing; sites are copied first, so no lock that malloc needs is held while the loader is asked for names.  The
 * format is protocol buffers' wire format: a message is a sequence of fields, each a key (number << 3 | wire type),
 * then a varint, or a length and that many bytes.  Repeated fields may be mixed with others, so strings, functions and
 * locations are written when they are first needed; two hash tables give those that were written their numbers.
 *
 * The file is complete in itself: functions have names, so that it can be read without the programs.  Where there is
 * none, module and offset stand for it, as a debugger would show them.
 */
#include "api/profile_proto.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/text.h"
#include "heap/profile.h"
#include "sys/symbols.h"
#include "sys/vm.h"

/* Fields of the messages, by their numbers in profile.proto. */
enum {
    PROFILE_SAMPLE_TYPE = 1,
    PROFILE_SAMPLE = 2,
    PROFILE_MAPPING = 3,
    PROFILE_LOCATION = 4,
    PROFILE_FUNCTION = 5,
    PROFILE_STRING = 6,
    PROFILE_TIME = 9,
    PROFILE_DURATION = 10,
    PROFILE_PERIOD_TYPE = 11,
    PROFILE_PERIOD = 12,
    PROFILE_COMMENT = 13,
    PROFILE_DEFAULT_SAMPLE_TYPE = 14,
    VALUE_TYPE = 1,
    VALUE_UNIT = 2,
    SAMPLE_LOCATIONS = 1,
    SAMPLE_VALUES = 2,
    MAPPING_ID = 1,
    MAPPING_START = 2,
    MAPPING_LIMIT = 3,
    MAPPING_OFFSET = 4,
    MAPPING_FILE = 5,
    MAPPING_BUILD_ID = 6,
    MAPPING_HAS_FUNCTIONS = 7,
    LOCATION_ID = 1,
    LOCATION_MAPPING = 2,
    LOCATION_ADDRESS = 3,
    LOCATION_LINE = 4,
    LINE_FUNCTION = 1,
    LINE_NUMBER = 2,
    FUNCTION_ID = 1,
    FUNCTION_NAME = 2,
    FUNCTION_SYSTEM_NAME = 3,
    FUNCTION_FILE = 4,
    FUNCTION_START = 5,
};

enum { FIRST_BYTES = 1 << 20, MODULES_MAX = 2048, MESSAGE_BYTES = 2048 };

/* ---- Bytes ---- */

static void grow(pa_proto_out *o, size_t wanted)
{
    size_t capacity = o->capacity ? o->capacity : FIRST_BYTES;
    while (capacity < wanted)
        capacity *= 2;
    unsigned char *data = pa_vm_map(capacity);
    if (!data) {
        o->failed = true;
        return;
    }
    if (o->data) {
        memcpy(data, o->data, o->len);
        pa_vm_unmap(o->data, o->capacity);
    }
    o->data = data;
    o->capacity = capacity;
}

static void put_bytes(pa_proto_out *o, const void *bytes, size_t n)
{
    if (!o->failed && o->capacity - o->len < n)
        grow(o, o->len + n);
    if (o->failed)
        return;
    memcpy(o->data + o->len, bytes, n);
    o->len += n;
}

void pa_proto_free(pa_proto_out *o)
{
    if (o->data)
        pa_vm_unmap(o->data, o->capacity);
    *o = (pa_proto_out){0};
}

/* A message under construction; the largest is a sample: PA_PROFILE_DEPTH_MAX numbers of at most 5 bytes and four. */
typedef struct message {
    size_t len;
    unsigned char bytes[MESSAGE_BYTES];
} message;

static void put_varint(message *m, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        m->bytes[m->len++] = (unsigned char)(v | 0x80);
    m->bytes[m->len++] = (unsigned char)v;
}

static void put_number(message *m, unsigned field, uint64_t v)
{
    if (v == 0) /* what a reader takes for granted */
        return;
    put_varint(m, field << 3);
    put_varint(m, v);
}

static void put_packed(message *m, unsigned field, const uint64_t *values, size_t count)
{
    message packed = {.len = 0};
    for (size_t i = 0; i < count; i++)
        put_varint(&packed, values[i]);
    put_varint(m, field << 3 | 2);
    put_varint(m, packed.len);
    memcpy(m->bytes + m->len, packed.bytes, packed.len);
    m->len += packed.len;
}

static void put_field(pa_proto_out *o, unsigned field, const void *bytes, size_t n)
{
    message head = {.len = 0};
    put_varint(&head, field << 3 | 2);
    put_varint(&head, n);
    put_bytes(o, head.bytes, head.len);
    put_bytes(o, bytes, n);
}

static void put_message(pa_proto_out *o, unsigned field, const message *m)
{
    put_field(o, field, m->bytes, m->len);
}

static void put_top(pa_proto_out *o, unsigned field, uint64_t v)
{
    message m = {.len = 0};
    put_number(&m, field, v);
    put_bytes(o, m.bytes, m.len);
}

/* ---- Numbers of what was written ---- */

typedef struct entry {
    uint64_t a, b, number; /* number 0: free */
} entry;

typedef struct table {
    entry *at;
    size_t capacity; /* a power of two, at least twice what goes in */
    uint64_t count;
} table;

/* The entry for (a, b); its number is 0 when it is new, and the caller sets it. */
static entry *find(table *t, uint64_t a, uint64_t b)
{
    uint64_t hash = (a ^ b * 0x9fb21c651e98df25u) * 0x9e3779b97f4a7c15u;
    for (size_t i = hash >> 20;; i++) {
        entry *e = &t->at[i & (t->capacity - 1)];
        if (e->number == 0)
            *e = (entry){a, b, 0};
        if (e->a == a && e->b == b)
            return e;
    }
}

/* ---- Encoding ---- */

typedef struct encoder {
    pa_proto_out *out;
    pa_profile_view view;
    pa_profile_site *sites;
    pa_module *modules;
    size_t site_count, module_count;
    table locations, functions;
    uint64_t string_count;
} encoder;

static uint64_t add_text(encoder *e, const char *text, size_t nbytes)
{
    put_field(e->out, PROFILE_STRING, text, nbytes);
    return e->string_count++;
}

static uint64_t add_string(encoder *e, const char *text)
{
    return add_text(e, text, strlen(text));
}

static void add_value_type(encoder *e, unsigned field, const char *type, const char *unit)
{
    message m = {.len = 0};
    put_number(&m, VALUE_TYPE, add_string(e, type));
    put_number(&m, VALUE_UNIT, add_string(e, unit));
    put_message(e->out, field, &m);
}

static void add_module(encoder *e, size_t i)
{
    const pa_module *module = &e->modules[i];
    char room[2 * PA_BUILD_ID_BYTES + 1];
    pa_text id = PA_TEXT(room);
    for (size_t k = 0; k < module->build_id_bytes; k++) {
        pa_text_char(&id, "0123456789abcdef"[module->build_id[k] >> 4]);
        pa_text_char(&id, "0123456789abcdef"[module->build_id[k] & 15]);
    }
    message m = {.len = 0};
    put_number(&m, MAPPING_ID, i + 1);
    put_number(&m, MAPPING_START, module->begin);
    put_number(&m, MAPPING_LIMIT, module->end);
    put_number(&m, MAPPING_OFFSET, module->file_offset);
    put_number(&m, MAPPING_FILE, add_string(e, module->path));
    put_number(&m, MAPPING_BUILD_ID, module->build_id_bytes ? add_string(e, pa_text_cstr(&id)) : 0);
    put_number(&m, MAPPING_HAS_FUNCTIONS, 1);
    put_message(e->out, PROFILE_MAPPING, &m);
}

/* Number of the module that holds the address + 1, 0: none (code made at run time). */
static size_t module_of(const encoder *e, uintptr_t address)
{
    for (size_t i = 0; i < e->module_count; i++)
        if (address >= e->modules[i].begin && address < e->modules[i].end)
            return i + 1;
    return 0;
}

static void add_function(encoder *e, entry *f, uint64_t name, uint64_t file, uint64_t line)
{
    message m = {.len = 0};
    f->number = ++e->functions.count;
    put_number(&m, FUNCTION_ID, f->number);
    put_number(&m, FUNCTION_NAME, name);
    put_number(&m, FUNCTION_SYSTEM_NAME, name);
    put_number(&m, FUNCTION_FILE, file);
    put_number(&m, FUNCTION_START, line);
    put_message(e->out, PROFILE_FUNCTION, &m);
}

/* "module+0x1234", or the address alone. */
static uint64_t add_nameless(encoder *e, const pa_module *module, uintptr_t address)
{
    char room[PA_MODULE_PATH_BYTES + 32];
    pa_text t = PA_TEXT(room);
    if (module) {
        const char *slash = strrchr(module->path, '/');
        pa_text_str(&t, slash ? slash + 1 : module->path);
        pa_text_char(&t, '+');
    }
    pa_text_str(&t, "0x");
    pa_text_uint(&t, module ? address - module->base : address, 16);
    return add_string(e, pa_text_cstr(&t));
}

static uint64_t native_function(encoder *e, size_t module_number, uintptr_t address)
{
    pa_module *module = module_number ? &e->modules[module_number - 1] : NULL;
    const char *name = module ? pa_symbol_name(module, address) : NULL;
    entry *f = find(&e->functions, name ? (uintptr_t)name : address, 0);
    if (!f->number)
        add_function(e, f, name ? add_string(e, name) : add_nameless(e, module, address),
                     module ? add_string(e, module->path) : 0, 0);
    return f->number;
}

static uint64_t add_stored(encoder *e, uint32_t offset)
{
    uint32_t nbytes;
    memcpy(&nbytes, e->view.strings + offset, sizeof nbytes);
    return add_text(e, e->view.strings + offset + sizeof nbytes, nbytes);
}

static uint64_t place_function(encoder *e, const pa_profile_place *p)
{
    entry *f = find(&e->functions, PA_PROFILE_PLACE | p->function, (uint64_t)p->file << 32 | p->function_line);
    if (!f->number)
        add_function(e, f, add_stored(e, p->function), add_stored(e, p->file), p->function_line);
    return f->number;
}

static uint64_t location(encoder *e, uint64_t frame)
{
    entry *known = find(&e->locations, frame, 0);
    if (known->number)
        return known->number;
    message m = {.len = 0}, line = {.len = 0};
    known->number = ++e->locations.count;
    put_number(&m, LOCATION_ID, known->number);
    if (frame & PA_PROFILE_PLACE) {
        const pa_profile_place *p = &e->view.places[frame & ~PA_PROFILE_PLACE];
        put_number(&line, LINE_FUNCTION, place_function(e, p));
        put_number(&line, LINE_NUMBER, p->line);
    } else {
        uintptr_t address = frame - 1; /* in the call, not behind it */
        size_t module = module_of(e, address);
        put_number(&m, LOCATION_MAPPING, module);
        put_number(&m, LOCATION_ADDRESS, address);
        put_number(&line, LINE_FUNCTION, native_function(e, module, address));
    }
    put_varint(&m, LOCATION_LINE << 3 | 2);
    put_varint(&m, line.len);
    memcpy(m.bytes + m.len, line.bytes, line.len);
    m.len += line.len;
    put_message(e->out, PROFILE_LOCATION, &m);
    return known->number;
}

static uint64_t blocks(uint64_t weight)
{
    return (weight + PA_WEIGHT_ONE / 2) / PA_WEIGHT_ONE;
}

static void add_sample(encoder *e, const pa_profile_site *s)
{
    uint64_t stack[PA_PROFILE_DEPTH_MAX];
    for (uint32_t i = 0; i < s->depth; i++)
        stack[i] = location(e, e->view.frames[s->first + i]);
    uint64_t values[] = {blocks(s->alloc_weight), s->alloc_bytes, blocks(s->alloc_weight - s->free_weight),
                         s->alloc_bytes - s->free_bytes};
    message m = {.len = 0};
    put_packed(&m, SAMPLE_LOCATIONS, stack, s->depth);
    put_packed(&m, SAMPLE_VALUES, values, sizeof values / sizeof *values);
    put_message(e->out, PROFILE_SAMPLE, &m);
}

static void add_comments(encoder *e)
{
    if (!e->view.lost)
        return;
    char room[96];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: samples lost, because a table was full: ");
    pa_text_uint(&t, e->view.lost, 10);
    put_top(e->out, PROFILE_COMMENT, add_string(e, pa_text_cstr(&t)));
}

static void encode(encoder *e)
{
    add_string(e, "");
    add_value_type(e, PROFILE_SAMPLE_TYPE, "alloc_objects", "count");
    add_value_type(e, PROFILE_SAMPLE_TYPE, "alloc_space", "bytes");
    add_value_type(e, PROFILE_SAMPLE_TYPE, "inuse_objects", "count");
    add_value_type(e, PROFILE_SAMPLE_TYPE, "inuse_space", "bytes");
    put_top(e->out, PROFILE_DEFAULT_SAMPLE_TYPE, add_string(e, "inuse_space"));
    add_value_type(e, PROFILE_PERIOD_TYPE, "space", "bytes");
    put_top(e->out, PROFILE_PERIOD, e->view.rate);
    put_top(e->out, PROFILE_TIME, e->view.begin_unix_ns);
    put_top(e->out, PROFILE_DURATION, e->view.duration_ns);
    add_comments(e);
    for (size_t i = 0; i < e->module_count; i++)
        add_module(e, i);
    for (size_t i = 0; i < e->site_count; i++)
        add_sample(e, &e->sites[i]);
}

/* ---- Memory for it ---- */

static size_t mapped(size_t nbytes)
{
    return pa_round_up(nbytes ? nbytes : 1, pa_vm_page_size_bytes());
}

static bool make_table(table *t, size_t entries)
{
    t->capacity = (size_t)1 << (pa_log2_floor(entries + 16) + 2);
    t->at = pa_vm_map(mapped(t->capacity * sizeof *t->at));
    return t->at != NULL;
}

static bool prepare(encoder *e)
{
    size_t frames = 0;
    e->sites = pa_vm_map(mapped(e->view.site_count * sizeof *e->sites));
    e->modules = pa_vm_map(mapped(MODULES_MAX * sizeof *e->modules));
    if (!e->sites || !e->modules)
        return false;
    e->site_count = pa_profile_copy_sites(e->sites, e->view.site_count);
    e->module_count = pa_modules_read(e->modules, MODULES_MAX);
    if (e->module_count > MODULES_MAX)
        e->module_count = MODULES_MAX;
    for (size_t i = 0; i < e->site_count; i++)
        frames += e->sites[i].depth;
    return make_table(&e->locations, frames) && make_table(&e->functions, frames);
}

static void clean_up(encoder *e)
{
    if (e->sites)
        pa_vm_unmap(e->sites, mapped(e->view.site_count * sizeof *e->sites));
    if (e->modules) {
        pa_modules_forget(e->modules, e->module_count);
        pa_vm_unmap(e->modules, mapped(MODULES_MAX * sizeof *e->modules));
    }
    for (table *t = &e->locations; t; t = t == &e->locations ? &e->functions : NULL)
        if (t->at)
            pa_vm_unmap(t->at, mapped(t->capacity * sizeof *t->at));
}

int pa_profile_encode(pa_proto_out *out)
{
    encoder e = {.out = out};
    pa_profile_look(&e.view);
    bool ok = prepare(&e);
    if (ok)
        encode(&e);
    clean_up(&e);
    return ok && !out->failed ? 0 : ENOMEM;
}
