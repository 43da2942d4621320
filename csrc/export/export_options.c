/* export_options.c - white-box view of base/options and base/text.
 *
 * Test builds only.  Owns nothing, no lock: options are parsed into the caller's struct, never into the
 * process's own, and texts are built in the caller's buffer.
 */
#include "export/export_options.h"

#include "base/options.h"
#include "base/text.h"

unsigned pa_xoptions_parse(pa_xoptions *out, const char *const *environment)
{
    pa_options o;
    unsigned warnings = pa_options_parse(&o, environment);
    *out = (pa_xoptions){
        .background = o.background,
        .stats_at_exit = o.stats_at_exit,
        .decay_ms = o.decay_ms,
        .gogc = o.gogc,
        .memlimit = o.memlimit,
        .gctrace = o.gctrace,
        .scavtrace = o.scavtrace,
        .madvdontneed = o.madvdontneed,
        .lockstat = o.lockstat,
    };
    return warnings;
}

bool pa_xoptions_value(const char *type, const char *text, int64_t *out)
{
    return pa_option_value(type, text, out);
}

size_t pa_xtext_build(char *out, size_t capacity, const char *word, int64_t n, unsigned base, size_t width)
{
    pa_text t = {.start = out, .capacity = capacity};
    pa_text_padded(&t, word, width);
    if (base == 10)
        pa_text_int(&t, n);
    else
        pa_text_uint(&t, (uint64_t)n, base);
    pa_text_cstr(&t);
    return t.len;
}
