/* export_options.h - base/options and base/text for tests. */
#ifndef PA_EXPORT_OPTIONS_H
#define PA_EXPORT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

typedef struct pa_xoptions {
    int64_t background, stats_at_exit, decay_ms, gogc, memlimit, gctrace, scavtrace, madvdontneed, lockstat;
} pa_xoptions;

/* Parses an environment that ends with NULL; returns the warnings written to stderr. */
unsigned pa_xoptions_parse(pa_xoptions *out, const char *const *environment);
bool pa_xoptions_value(const char *type, const char *text, int64_t *out);
/* Builds words, a number and a padded word into capacity bytes; returns the length, the text ends with 0. */
size_t pa_xtext_build(char *out, size_t capacity, const char *word, int64_t n, unsigned base, size_t width);

/* cffi: end */

#endif
