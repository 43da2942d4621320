/* graph.h - objects of many shapes that carry what they are: for mutator.c.
 *
 * Every object begins with the same five words, whatever its shape: id, check word, shape and count, and the birth
 * edge, a pointer that is written once when the object is made, with the id of what it points to beside it.  So a
 * reader that follows a birth edge knows which object it must meet; a slot that threads race on leads at least to
 * an object that is whole.
 */
#ifndef PA_GC_GRAPH_H
#define PA_GC_GRAPH_H

#include "gc_test.h"

typedef enum shape {
    LEAF,         /* no pointers, pa_new_bytes */
    STRUCT,       /* 1..8 slots, precise */
    CELLS,        /* array of 48-byte cells with two slots each */
    POINTERS,     /* birth leads to an array of pointers whose first is this object */
    CONSERVATIVE, /* slots are written plainly and some hold junk */
    TINY,         /* birth leads to 1..15 bytes; birth_id is their contents */
    SHAPES
} shape;

typedef struct object {
    uint64_t id;
    uint64_t check;
    uint32_t shape;
    uint32_t count; /* of slots; of bytes for LEAF and TINY */
    uint64_t birth_id;
    void *birth;
    void *slots[];
} object;

typedef struct cell {
    uint64_t scalars[4]; /* some look like pointers */
    void *slots[2];
} cell;

static const pa_type *struct_types[9], *cell_type;

static void make_types(void)
{
    size_t offsets[10] = {offsetof(object, birth)};
    for (size_t slots = 0; slots <= 8; slots++) {
        offsets[slots + 1] = sizeof(object) + slots * 8;
        struct_types[slots] = pa_type_new(sizeof(object) + slots * 8, offsets, slots + 1);
        REQUIRE(struct_types[slots]);
    }
    REQUIRE(struct_types[3] == pa_type_new(sizeof(object) + 24, offsets, 4), "equal layouts are one type");
    REQUIRE(pa_type_bytes(struct_types[3]) == sizeof(object) + 24);
    size_t in_cell[2] = {offsetof(cell, slots), offsetof(cell, slots) + 8};
    REQUIRE((cell_type = pa_type_new(sizeof(cell), in_cell, 2)));
    /* birth is a cell's first slot: the header of an object fits over a cell */
    _Static_assert(offsetof(object, birth) == offsetof(cell, slots), "");
}

static inline uint64_t object_check(const object *o)
{
    return check_of(o->id ^ (uint64_t)o->shape << 56 ^ (uint64_t)o->count << 20 ^ o->birth_id);
}

static inline size_t slot_count(const object *o)
{
    return o->shape == LEAF || o->shape == TINY ? 0 : o->count;
}

static inline void **slot_of(object *o, size_t j)
{
    switch (o->shape) {
    case CELLS: /* after the header's cell */
        return &((cell *)o + 1 + j / 2)->slots[j % 2];
    case POINTERS:
        return (void **)o->birth + 1 + j;
    default:
        return &o->slots[j];
    }
}

static inline unsigned char tiny_byte(uint64_t value, size_t i) { return (unsigned char)(value >> i % 8 * 8); }

/* o and what it was born with are whole. */
static void verify(const object *o)
{
    REQUIRE(o->check == object_check(o) && o->shape < SHAPES, "%p: id %#" PRIx64 " shape %u count %u", (void *)o, o->id,
            o->shape, o->count);
    switch (o->shape) {
    case LEAF:
        pattern_verify(o->slots, o->count, o->count, (uint32_t)o->id);
        break;
    case TINY:
        for (size_t i = 0; i < o->count; i++)
            REQUIRE(((unsigned char *)o->birth)[i] == tiny_byte(o->birth_id, i), "tiny byte %zu of %u", i, o->count);
        break;
    case POINTERS:
        REQUIRE(load(o->birth) == (void *)o, "an array of %u lost its owner", o->count);
        break;
    default:
        if (o->birth_id) {
            const object *born = o->birth;
            REQUIRE(born->id == o->birth_id && born->check == object_check(born), "birth edge of %p: %p", (void *)o,
                    (void *)born);
        }
    }
}

/* What p, maybe an interior pointer, lies in; NULL for NULL. */
static inline object *object_at(void *p)
{
    if (!p)
        return NULL;
    object *o = pa_find_object(p);
    REQUIRE(o, "%p is in no live object", p);
    verify(o);
    return o;
}

static inline bool is_junk(const void *word) { return (uintptr_t)word & 1; }

/* Reads slot j as its shape asks for: NULL for NULL and for junk. */
static inline void *load_slot(object *o, size_t j)
{
    if (o->shape != CONSERVATIVE)
        return load(slot_of(o, j));
    void *word = pa_load_unbarriered(slot_of(o, j));
    return is_junk(word) ? NULL : word;
}

static inline void store_slot(object *o, size_t j, void *value)
{
    if (o->shape == CONSERVATIVE)
        __atomic_store_n(slot_of(o, j), value, __ATOMIC_RELEASE); /* plain on x86; threads race on it */
    else
        pa_store(slot_of(o, j), value);
}

static void finish_object(object *o, shape shape, size_t count, uint64_t id, uint64_t birth_id)
{
    o->shape = shape;
    o->count = (uint32_t)count;
    o->id = id;
    o->birth_id = birth_id;
    o->check = object_check(o);
}

/* A new object of a random shape in *out, a root, with a birth edge to what *birth, a root or NULL, holds. */
static void make_object(void **out, void **birth, uint64_t id, uint64_t *random)
{
    shape shape = (unsigned)random_below(random, SHAPES);
    size_t count = random_below(random, 8) + 1, huge = random_below(random, 400);
    object *o;
    switch (shape) {
    case LEAF:
        count = huge == 0 ? 40000 + random_below(random, 200000) : random_below(random, 600);
        o = *out = must(pa_new_bytes(sizeof(object) + count));
        pattern_fill(o->slots, count, (uint32_t)id);
        finish_object(o, shape, count, id, 0);
        return;
    case TINY: {
        count = random_below(random, 15) + 1;
        uint64_t value = random_next(random);
        *out = must(pa_new_bytes(count));
        for (size_t i = 0; i < count; i++) {
            REQUIRE(((unsigned char *)*out)[i] == 0, "tiny memory is not zero");
            ((unsigned char *)*out)[i] = tiny_byte(value, i);
        }
        o = must(pa_new(struct_types[0]));
        pa_store(&o->birth, *out);
        *out = o;
        finish_object(o, shape, count, id, value);
        return;
    }
    case POINTERS:
        count = huge < 4 ? 5000 + random_below(random, 25000) : count * count * count;
        *out = must(pa_new(struct_types[0]));
        void **array = must(pa_new_pointers(count + 1));
        o = *out;
        pa_store(&array[0], o);
        pa_store(&o->birth, array);
        finish_object(o, shape, count, id, 0);
        return;
    case CELLS: {
        size_t cells = huge < 2 ? 1000 + random_below(random, 3000) : count * count;
        cell *array = must(pa_new_array(cell_type, cells + 1));
        for (size_t i = 1; i <= cells; i++)
            for (size_t j = 0; j < 4; j++)
                array[i].scalars[j] = (uintptr_t)*birth; /* no pointers, whatever they look like */
        *out = array;
        count = cells * 2;
        break;
    }
    case CONSERVATIVE:
        count = huge < 2 ? 5000 + random_below(random, 13000) : count * 3;
        o = *out = must(pa_new_conservative(sizeof(object) + count * 8));
        for (size_t j = 0; j < count; j++) {
            uint64_t near = (uintptr_t)o + random_below(random, 1 << 22);
            uint64_t junk = random_below(random, 2) ? random_next(random) : near;
            if (random_below(random, 4) == 0)
                store_plainly(&o->slots[j], (void *)(uintptr_t)(junk | 1));
        }
        break;
    default:
        *out = must(pa_new(struct_types[count]));
        break;
    }
    o = *out;
    object *born = *birth;
    if (born && shape == CONSERVATIVE)
        store_plainly(&o->birth, born);
    else if (born)
        pa_store(&o->birth, born);
    finish_object(o, shape, count, id, born ? born->id : 0);
}

#endif
