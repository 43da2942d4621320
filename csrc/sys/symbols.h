/* symbols.h - what is mapped where in this process, and which function an address is in. */
#ifndef PA_SYMBOLS_H
#define PA_SYMBOLS_H

#include "base/config.h"

enum { PA_BUILD_ID_BYTES = 32, PA_MODULE_PATH_BYTES = 1024 };

/* Addresses of code; empty where they are not known. */
typedef struct pa_code_range {
    uintptr_t begin, end;
} pa_code_range;

PA_INLINE bool pa_code_range_has(const pa_code_range *r, uintptr_t address)
{
    return address >= r->begin && address < r->end;
}

/* Of an exported function; of the program's or library's code that it is in. Both take the loader's lock, see below. */
pa_code_range pa_function_range(const void *function);
pa_code_range pa_module_range(const void *function);

/* Executable code of the program or of a shared library. */
typedef struct pa_module {
    uintptr_t begin, end, base; /* base: what the file's addresses are relative to */
    uint64_t file_offset;       /* of begin */
    unsigned char build_id[PA_BUILD_ID_BYTES];
    size_t build_id_bytes;      /* 0: it has none */
    char path[PA_MODULE_PATH_BYTES];
    struct pa_elf_symbols *symbols; /* of the file, once somebody asked */
} pa_module;

/* Fills out[0..min(capacity, count)) by address; returns how many there are. Takes the loader's lock for a while: no
 * lock that malloc takes may be held. Allocates nothing. */
size_t pa_modules_read(pa_module *out, size_t capacity);
/* Gives back what pa_symbol_name mapped. */
void pa_modules_forget(pa_module *modules, size_t count);
/* The name of the function in module m that holds the address, NULL when neither the loader nor the file's symbol table
 * knows. Lives until pa_modules_forget. */
const char *pa_symbol_name(pa_module *m, uintptr_t address);

#endif
