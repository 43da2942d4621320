/* symbols.c - names for addresses, from the symbol table of the file that was mapped, or the loader's.
 *
 * Owns nothing but what it maps for a caller; no locks of its own.  A program's own functions and static ones stand in
 * the section .symtab of the file; where it was stripped, .dynsym has what is exported.  The one that is there is read
 * into memory from the operating system and sorted, and addresses are found by bisection: dladdr(), which finds the
 * same by looking at every symbol, takes 0.1 s for a profile of a program with 40,000 of them, and is asked only where
 * there is no file.  64-bit ELF of this machine's byte order; what does not look right is a file without symbols.
 */
#include "sys/symbols.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "sys/vm.h"

enum {
    MOST_TABLE_BYTES = 1 << 30,
    NESTED_MAX = 8, /* functions of other names that begin between an address and its own function */
    DIGIT_BITS = 11,
    DIGIT_MASK = (1 << DIGIT_BITS) - 1,
};

typedef struct pa_elf_symbols {
    size_t mapped_bytes;        /* of this and what follows */
    size_t count;
    const Elf64_Sym *functions; /* by address */
    const char *names;
} pa_elf_symbols;

/* A file without symbols. */
static pa_elf_symbols no_symbols;

/* ---- Ranges ---- */

pa_code_range pa_function_range(const void *function)
{
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (!dladdr1(function, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
        return (pa_code_range){0, 0};
    return (pa_code_range){(uintptr_t)info.dli_saddr, (uintptr_t)info.dli_saddr + symbol->st_size};
}

typedef struct range_search {
    uintptr_t wanted;
    pa_code_range found;
} range_search;

static int look_for_range(struct dl_phdr_info *info, size_t size, void *argument)
{
    range_search *search = argument;
    pa_code_range all = {UINTPTR_MAX, 0};
    bool wanted = false;
    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++) { /* code may be in several mappings, ours is */
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        pa_code_range one = {info->dlpi_addr + part->p_vaddr, info->dlpi_addr + part->p_vaddr + part->p_memsz};
        wanted |= pa_code_range_has(&one, search->wanted);
        all.begin = one.begin < all.begin ? one.begin : all.begin;
        all.end = one.end > all.end ? one.end : all.end;
    }
    if (wanted)
        search->found = all;
    return wanted;
}

pa_code_range pa_module_range(const void *function)
{
    range_search search = {(uintptr_t)function, {0, 0}};
    dl_iterate_phdr(look_for_range, &search);
    return search.found;
}

/* ---- Modules ---- */

typedef struct listing {
    pa_module *out;
    size_t capacity, count;
} listing;

/* The note with the build id among those at [at, end). */
static void read_build_id(pa_module *m, const char *at, const char *end)
{
    Elf64_Nhdr note;
    while ((size_t)(end - at) >= sizeof note) {
        memcpy(&note, at, sizeof note);
        const char *name = at + sizeof note;
        size_t name_bytes = pa_round_up(note.n_namesz, 4), desc_bytes = pa_round_up(note.n_descsz, 4);
        if (name_bytes + desc_bytes > (size_t)(end - name))
            return;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(name, "GNU", 4) == 0 &&
            note.n_descsz <= PA_BUILD_ID_BYTES) {
            memcpy(m->build_id, name + name_bytes, note.n_descsz);
            m->build_id_bytes = note.n_descsz;
            return;
        }
        at = name + name_bytes + desc_bytes;
    }
}

static void read_path(pa_module *m, const char *name)
{
    size_t length = strlen(name);
    if (length) {
        length = length < sizeof m->path - 1 ? length : sizeof m->path - 1;
        memcpy(m->path, name, length);
    } else { /* the program */
        ssize_t n = readlink("/proc/self/exe", m->path, sizeof m->path - 1);
        length = n > 0 ? (size_t)n : 0;
    }
    m->path[length] = 0;
}

static int add_module(struct dl_phdr_info *info, size_t size, void *argument)
{
    listing *l = argument;
    (void)size;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        if (l->count++ >= l->capacity)
            continue;
        pa_module *m = &l->out[l->count - 1];
        memset(m, 0, sizeof *m);
        m->base = info->dlpi_addr;
        m->begin = info->dlpi_addr + part->p_vaddr;
        m->end = m->begin + part->p_memsz;
        m->file_offset = part->p_offset;
        read_path(m, info->dlpi_name ? info->dlpi_name : "");
        for (size_t k = 0; k < info->dlpi_phnum; k++) {
            const ElfW(Phdr) *note = &info->dlpi_phdr[k];
            const char *at = (const char *)(info->dlpi_addr + note->p_vaddr);
            if (note->p_type == PT_NOTE && !m->build_id_bytes)
                read_build_id(m, at, at + note->p_memsz);
        }
    }
    return 0;
}

size_t pa_modules_read(pa_module *out, size_t capacity)
{
    listing l = {out, capacity, 0};
    dl_iterate_phdr(add_module, &l);
    size_t have = l.count < capacity ? l.count : capacity;
    for (size_t i = 1; i < have; i++) { /* a few dozen, nearly in order */
        pa_module moving = out[i];
        size_t k = i;
        for (; k > 0 && out[k - 1].begin > moving.begin; k--)
            out[k] = out[k - 1];
        out[k] = moving;
    }
    return l.count;
}

/* ---- Symbols of a file ---- */

static bool read_at(int fd, void *out, size_t nbytes, uint64_t offset)
{
    char *at = out;
    while (nbytes) {
        ssize_t n = pread(fd, at, nbytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        offset += (uint64_t)n;
        nbytes -= (size_t)n;
    }
    return true;
}

/* The sections of all symbols, or of those for the loader where the others were stripped, and of their names. */
static bool find_tables(int fd, Elf64_Shdr *symbols, Elf64_Shdr *names)
{
    Elf64_Ehdr head;
    Elf64_Shdr section;
    if (!read_at(fd, &head, sizeof head, 0) || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 ||
        head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_shentsize != sizeof section)
        return false;
    symbols->sh_type = SHT_NULL;
    for (unsigned i = 0; i < head.e_shnum && symbols->sh_type != SHT_SYMTAB; i++) {
        if (!read_at(fd, &section, sizeof section, head.e_shoff + i * sizeof section))
            return false;
        if (section.sh_type == SHT_SYMTAB || section.sh_type == SHT_DYNSYM)
            *symbols = section;
    }
    return symbols->sh_type != SHT_NULL && symbols->sh_link < head.e_shnum &&
           symbols->sh_entsize == sizeof(Elf64_Sym) &&
           read_at(fd, names, sizeof *names, head.e_shoff + symbols->sh_link * sizeof *names) && names->sh_size &&
           symbols->sh_size < MOST_TABLE_BYTES && names->sh_size < MOST_TABLE_BYTES;
}

/* By address, digit by digit from the lowest: where the sorted ones are, `from` or `to`. Tables have tens of thousands,
 * and nearly all of the time that a file's names cost went into comparisons. */
static Elf64_Sym *sort(Elf64_Sym *from, Elf64_Sym *to, size_t count)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (size_t i = 0; i < count; i++) {
        low = from[i].st_value < low ? from[i].st_value : low;
        high = from[i].st_value > high ? from[i].st_value : high;
    }
    for (unsigned shift = 0; shift < 64 && count && (high - low) >> shift; shift += DIGIT_BITS) {
        uint32_t place[1 << DIGIT_BITS] = {0}, next = 0;
        for (size_t i = 0; i < count; i++)
            place[(from[i].st_value - low) >> shift & DIGIT_MASK]++;
        for (size_t digit = 0; digit <= DIGIT_MASK; digit++) {
            uint32_t here = place[digit];
            place[digit] = next;
            next += here;
        }
        for (size_t i = 0; i < count; i++)
            to[place[(from[i].st_value - low) >> shift & DIGIT_MASK]++] = from[i];
        Elf64_Sym *sorted = to;
        to = from;
        from = sorted;
    }
    return from;
}

/* Functions only; how many. */
static size_t keep_functions(Elf64_Sym *s, size_t count, size_t names_bytes)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (ELF64_ST_TYPE(s[i].st_info) == STT_FUNC && s[i].st_shndx != SHN_UNDEF && s[i].st_size && s[i].st_name &&
            s[i].st_name < names_bytes)
            s[kept++] = s[i];
    return kept;
}

static pa_elf_symbols *load_symbols(const char *path)
{
    Elf64_Shdr symbols = {0}, names = {0};
    pa_elf_symbols *loaded = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return &no_symbols;
    if (find_tables(fd, &symbols, &names)) {
        size_t nbytes = pa_round_up(sizeof *loaded, 64) + 2 * symbols.sh_size + names.sh_size;
        nbytes = pa_round_up(nbytes, pa_vm_page_size_bytes());
        loaded = pa_vm_map(nbytes);
        if (loaded) {
            char *table = (char *)loaded + pa_round_up(sizeof *loaded, 64), *texts = table + 2 * symbols.sh_size;
            if (read_at(fd, table, symbols.sh_size, symbols.sh_offset) &&
                read_at(fd, texts, names.sh_size, names.sh_offset) && texts[names.sh_size - 1] == 0) {
                Elf64_Sym *functions = (Elf64_Sym *)(void *)table;
                size_t count = keep_functions(functions, symbols.sh_size / sizeof *functions, names.sh_size);
                Elf64_Sym *other = (Elf64_Sym *)(void *)(table + symbols.sh_size);
                *loaded = (pa_elf_symbols){nbytes, count, sort(functions, other, count), texts};
            } else {
                pa_vm_unmap(loaded, nbytes);
                loaded = NULL;
            }
        }
    }
    close(fd);
    return loaded ? loaded : &no_symbols;
}

static const char *find_in_file(const pa_elf_symbols *t, uint64_t wanted)
{
    size_t low = 0, high = t->count; /* those before low begin at or before wanted */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->functions[middle].st_value <= wanted)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t tries = 0; low-- > 0 && tries < NESTED_MAX; tries++)
        if (wanted - t->functions[low].st_value < t->functions[low].st_size)
            return t->names + t->functions[low].st_name;
    return NULL;
}

static const char *find_by_loader(uintptr_t address)
{
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (dladdr1((void *)address, &info, (void **)&symbol, RTLD_DL_SYMENT) && info.dli_sname && symbol &&
        address - (uintptr_t)info.dli_saddr < symbol->st_size)
        return info.dli_sname;
    return NULL;
}

const char *pa_symbol_name(pa_module *m, uintptr_t address)
{
    if (!m->symbols)
        m->symbols = load_symbols(m->path);
    return m->symbols->count ? find_in_file(m->symbols, address - m->base) : find_by_loader(address);
}

void pa_modules_forget(pa_module *modules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (modules[i].symbols && modules[i].symbols != &no_symbols)
            pa_vm_unmap(modules[i].symbols, modules[i].symbols->mapped_bytes);
        modules[i].symbols = NULL;
    }
}
