/* options.c - reading PYALLOC_* from the environment.
 *
 * Owns the options.  Written once, by the library's constructor, before any other thread exists; no lock.
 * The environment is walked with our own code, because getenv is not promised to work while the loader is still
 * at it, and nothing here allocates: this is malloc's own start.
 *
 * Go's variables are applied first and ours win.  Unknown keys of GODEBUG are Go's business; unknown names
 * of ours are typing errors, and one line says so.  Never a crash, never a half-applied value.
 */
#include "base/options.h"

#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/text.h"

extern char **environ;

#define DEFAULTS(field, name, type, value, text, fallback, doc) .field = (value),
#define DEBUG_DEFAULTS(field, value, doc) .field = (value),
#define ALL_DEFAULTS {PA_OPTIONS(DEFAULTS) PA_DEBUG_KEYS(DEBUG_DEFAULTS)}

pa_options pa_the_options = ALL_DEFAULTS;
static const pa_options defaults = ALL_DEFAULTS;

/* ---- The table ---- */

/* Text, not pointers to it: each would be a relocation, and its page, in every program; what each start reads apart
 * from what it does not. */
typedef struct option {
    char name[24], fallback[12], type[8];
    uint16_t offset;
} option;

typedef struct option_text {
    char default_text[8], doc[112];
} option_text;

static const option table[PA_OPTION_COUNT] = {
#define X(field, name, type, value, text, fallback, doc) {name, fallback, #type, offsetof(pa_options, field)},
    PA_OPTIONS(X)
#undef X
};

static const option_text texts[PA_OPTION_COUNT] = {
#define X(field, name, type, value, text, fallback, doc) {text, doc},
    PA_OPTIONS(X)
#undef X
};

typedef struct debug_key {
    char key[16], name[32], default_text[4], doc[112];
    uint16_t offset;
} debug_key;

static const debug_key debug_keys[PA_DEBUG_KEY_COUNT] = {
#define X(field, value, doc) {#field, "PYALLOC_DEBUG=" #field, #value, doc, offsetof(pa_options, field)},
    PA_DEBUG_KEYS(X)
#undef X
};

#define FITS(text, field) sizeof(text) <= sizeof field
#define X(f, n, t, v, s, g, d)                                                                               \
    _Static_assert(FITS(n, table->name) && FITS(g, table->fallback) && FITS(#t, table->type) &&              \
                       FITS(s, texts->default_text) && FITS(d, texts->doc), "longer than its field");
PA_OPTIONS(X)
#undef X
#define X(f, v, d)                                                                                           \
    _Static_assert(FITS(#f, debug_keys->key) && FITS(#v, debug_keys->default_text) &&                        \
                       FITS(d, debug_keys->doc), "longer than its field");
PA_DEBUG_KEYS(X)
#undef X
#undef FITS

static int64_t *field_of(pa_options *o, size_t offset)
{
    return (int64_t *)((char *)o + offset);
}

/* Which variable each value came from; of pa_the_options only. */
static const char *sources[PA_OPTION_COUNT + PA_DEBUG_KEY_COUNT];

/* ---- Values ---- */

static bool is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

/* Decimal digits at text, at least one; *end is what follows. */
static bool parse_number(const char *text, const char **end, int64_t *out)
{
    int64_t n = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *p - '0', &n))
            return false;
    *end = p;
    *out = n;
    return p > text;
}

static bool parse_plain_number(const char *text, int64_t *out)
{
    const char *end;
    return parse_number(text, &end, out) && *end == '\0';
}

static bool parse_bool(const char *text, int64_t *out)
{
    static const char words[][8] = {"0", "false", "no", "off", "1", "true", "yes", "on"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i >= 4;
            return true;
        }
    return false;
}

static bool parse_bytes(const char *text, int64_t *out)
{
    static const char units[][4] = {"", "KiB", "MiB", "GiB", "TiB"};
    const char *unit;
    int64_t n;
    if (strcmp(text, "off") == 0) {
        *out = PA_OFF_BYTES;
        return true;
    }
    if (!parse_number(text, &unit, &n))
        return false;
    if (strcmp(unit, "B") == 0)
        unit++;
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(unit, units[i]) == 0)
            return !__builtin_mul_overflow(n, (int64_t)1 << 10 * i, out);
    return false;
}

static bool parse_percent(const char *text, int64_t *out)
{
    if (strcmp(text, "off") == 0) {
        *out = PA_OFF_PERCENT;
        return true;
    }
    return parse_plain_number(text, out) && *out <= INT32_MAX;
}

bool pa_option_value(const char *type, const char *text, int64_t *out)
{
    if (strcmp(type, "BOOL") == 0)
        return parse_bool(text, out);
    if (strcmp(type, "BYTES") == 0)
        return parse_bytes(text, out);
    if (strcmp(type, "PERCENT") == 0)
        return parse_percent(text, out);
    if (strcmp(type, "PATH") == 0) {
        *out = (int64_t)(intptr_t)text;
        return true;
    }
    return parse_plain_number(text, out) && *out <= INT32_MAX;
}

/* ---- Warnings ---- */

static unsigned warn(const char *name, size_t name_len, const char *value, const char *why)
{
    char room[256];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, "pyalloc: ");
    pa_text_printable(&t, name, name_len, 64);
    if (value) {
        pa_text_char(&t, '=');
        pa_text_printable(&t, value, strlen(value), 64);
    }
    pa_text_str(&t, ": ");
    pa_text_str(&t, why);
    pa_text_write_line(&t, STDERR_FILENO);
    return 1;
}

static unsigned warn_malformed(const char *name, const char *value, const char *type, const char *default_text)
{
    static const struct {
        const char *type, *expected;
    } texts[] = {
        {"BOOL", "not 0 or 1"},
        {"MS", "not a number of milliseconds"},
        {"COUNT", "not a number"},
        {"PERCENT", "not a percentage or off"},
        {"BYTES", "not a size such as 512MiB, or off"},
        {"NUMBER", "not a list of key=number"},
    };
    char room[128];
    pa_text t = PA_TEXT(room);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(type, texts[i].type) == 0)
            pa_text_str(&t, texts[i].expected);
    pa_text_str(&t, "; using the default, ");
    pa_text_str(&t, default_text);
    return warn(name, strlen(name), value, pa_text_cstr(&t));
}

/* ---- The environment ---- */

static const char *find(const char *const *environment, const char *name)
{
    size_t len = strlen(name);
    for (; *environment; environment++)
        if (strncmp(*environment, name, len) == 0 && (*environment)[len] == '=')
            return *environment + len + 1;
    return NULL;
}

static void set_source(const pa_options *out, unsigned i, const char *name)
{
    if (out == &pa_the_options)
        sources[i] = name;
}

/* An empty value is as good as none: shells make it easy to set one. */
static unsigned apply(pa_options *out, unsigned i, const char *name, const char *value)
{
    int64_t parsed;
    if (!value || !*value)
        return 0;
    if (!pa_option_value(table[i].type, value, &parsed))
        return warn_malformed(name, value, table[i].type, texts[i].default_text);
    *field_of(out, table[i].offset) = parsed;
    set_source(out, i, name);
    return 0;
}

static int find_debug_key(const char *key, size_t len)
{
    for (int k = 0; k < PA_DEBUG_KEY_COUNT; k++)
        if (is_word(key, len, debug_keys[k].key))
            return k;
    return -1;
}

/* One key=number of a comma list, [item, end). */
static unsigned apply_debug_item(pa_options *out, const char *name, bool strict, const char *item, const char *end)
{
    const char *equals = memchr(item, '=', (size_t)(end - item));
    int k = find_debug_key(item, (size_t)((equals ? equals : end) - item));
    const char *after = NULL;
    int64_t n = 0;
    bool ok = equals && parse_number(equals + 1, &after, &n) && after == end && n <= INT32_MAX;
    if (k >= 0 && ok) {
        *field_of(out, debug_keys[k].offset) = n;
        set_source(out, PA_OPTION_COUNT + (unsigned)k, name);
        return 0;
    }
    if (!strict) /* GODEBUG */
        return 0;
    char room[128];
    pa_text t = PA_TEXT(room);
    pa_text_str(&t, k < 0 ? "unknown key " : "malformed ");
    pa_text_printable(&t, item, (size_t)(end - item), 40);
    pa_text_str(&t, ", ignored");
    return warn(name, strlen(name), NULL, pa_text_cstr(&t));
}

static unsigned apply_debug(pa_options *out, const char *name, bool strict, const char *list)
{
    unsigned warnings = 0;
    while (list && *list) {
        const char *end = strchr(list, ',');
        if (!end)
            end = list + strlen(list);
        if (end > list)
            warnings += apply_debug_item(out, name, strict, list, end);
        list = *end ? end + 1 : end;
    }
    return warnings;
}

static bool is_known(const char *entry, size_t name_len)
{
    static const char tools[][16] = {"PYALLOC_BUILD_", "PYALLOC_BENCH_", "PYALLOC_RECORD"};
    for (size_t i = 0; i < sizeof tools / sizeof *tools; i++)
        if (strncmp(entry, tools[i], strlen(tools[i])) == 0)
            return true;
    for (unsigned i = 0; i < PA_OPTION_COUNT; i++)
        if (is_word(entry, name_len, table[i].name))
            return true;
    return is_word(entry, name_len, "PYALLOC_DEBUG");
}

static unsigned warn_of_unknown(const char *const *environment)
{
    unsigned warnings = 0;
    for (; *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        if (!equals || strncmp(*environment, "PYALLOC_", 8) != 0)
            continue;
        size_t name_len = (size_t)(equals - *environment);
        if (!is_known(*environment, name_len))
            warnings += warn(*environment, name_len, NULL,
                             "unknown option, ignored (python -m pyalloc options lists them)");
    }
    return warnings;
}

unsigned pa_options_parse(pa_options *out, const char *const *environment)
{
    unsigned warnings = 0;
    *out = defaults;
    for (unsigned i = 0; i < PA_OPTION_COUNT; i++) {
        const char *ours = find(environment, table[i].name);
        if (ours && *ours)
            warnings += apply(out, i, table[i].name, ours);
        else if (table[i].fallback[0])
            warnings += apply(out, i, table[i].fallback, find(environment, table[i].fallback));
    }
    warnings += apply_debug(out, "GODEBUG", false, find(environment, "GODEBUG"));
    warnings += apply_debug(out, "PYALLOC_DEBUG", true, find(environment, "PYALLOC_DEBUG"));
    return warnings + warn_of_unknown(environment);
}

void pa_options_load(void)
{
    static bool loaded;
    if (loaded || !environ)
        return;
    loaded = true;
    if (getauxval(AT_SECURE) == 0)
        pa_options_parse(&pa_the_options, (const char *const *)environ);
}

bool pa_options_row(unsigned i, pa_option_row *out)
{
    if (i >= PA_OPTION_COUNT + PA_DEBUG_KEY_COUNT)
        return false;
    if (i < PA_OPTION_COUNT)
        *out = (pa_option_row){
            .name = table[i].name,
            .type = table[i].type,
            .default_text = texts[i].default_text,
            .doc = texts[i].doc,
            .value = *field_of(&pa_the_options, table[i].offset),
        };
    else
        *out = (pa_option_row){
            .name = debug_keys[i - PA_OPTION_COUNT].name,
            .type = "NUMBER",
            .default_text = debug_keys[i - PA_OPTION_COUNT].default_text,
            .doc = debug_keys[i - PA_OPTION_COUNT].doc,
            .value = *field_of(&pa_the_options, debug_keys[i - PA_OPTION_COUNT].offset),
        };
    out->source = sources[i] ? sources[i] : "default";
    return true;
}

bool pa_options_is_set(const int64_t *field)
{
    size_t offset = (size_t)((const char *)field - (const char *)&pa_the_options);
    for (unsigned i = 0; i < PA_OPTION_COUNT + PA_DEBUG_KEY_COUNT; i++)
        if ((i < PA_OPTION_COUNT ? table[i].offset : debug_keys[i - PA_OPTION_COUNT].offset) == offset)
            return sources[i] != NULL;
    return false;
}
