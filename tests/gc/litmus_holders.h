/* litmus_holders.h - where the cases of litmus.c keep their objects: holders threaded through a ballast.
 *
 * A holder's slot 0 leads to a victim, whose slot 0 leads to a child with the victim's id shifted: being marked is not
 * enough, it must be scanned, too.  expected says which victim is where; one thread changes it.
 */
#ifndef PA_LITMUS_HOLDERS_H
#define PA_LITMUS_HOLDERS_H

#include "gc_test.h"

enum { HOLDERS = 64, FRAMED = 8 };

static const pa_type *holder_type, *victim_type, *link_type;
static node *holders[HOLDERS]; /* addresses only: kept by the ballast */
static pa_handle *ballast;
static atomic_ulong next_id = 1;
static uint64_t random_state;
static void *framed[FRAMED];
static uint64_t expected[HOLDERS]; /* id in holder i's slot 0; 0: none */

static size_t below(size_t n) { return random_below(&random_state, n); }
static uint64_t take_id(void) { return atomic_fetch_add(&next_id, 1); }

/* link: slot 0 the next link, slot 1 a holder now and then. */
static void make_ballast(long links)
{
    REQUIRE((ballast = pa_handle_new(NULL)));
    void *slots[2];
    pa_frame frame;
    pa_frame_push(&frame, slots, 2);
    for (long i = 0, h = 0; i < links; i++) {
        slots[0] = new_node(link_type, take_id());
        pa_store(&((node *)slots[0])->slots[0], pa_handle_get(ballast));
        if (h < HOLDERS && i >= h * links / HOLDERS) {
            slots[1] = new_node(holder_type, take_id());
            pa_store(&((node *)slots[0])->slots[1], slots[1]);
            holders[h++] = slots[1];
        }
        pa_handle_set(ballast, slots[0]);
    }
    pa_frame_pop(&frame);
}

/* A fresh victim in holder i, with a child of its own so that being marked is not enough. */
static void fill(size_t i)
{
    framed[0] = new_node(victim_type, take_id());
    framed[1] = new_node(victim_type, ((node *)framed[0])->id << 20);
    pa_store(&((node *)framed[0])->slots[0], framed[1]);
    pa_store(&holders[i]->slots[0], framed[0]);
    expected[i] = ((node *)framed[0])->id;
    framed[0] = framed[1] = NULL;
}

static node *whole(void *p, uint64_t id)
{
    node *n = met_as(p, id);
    met_as(n->slots[0], id << 20);
    return n;
}

static node *in_holder(size_t i) { return whole(load(&holders[i]->slots[0]), expected[i]); }

static size_t full_holder(void)
{
    for (size_t i = below(HOLDERS);; i = (i + 1) % HOLDERS)
        if (expected[i])
            return i;
}

static size_t empty_holder(void)
{
    for (size_t i = below(HOLDERS);; i = (i + 1) % HOLDERS)
        if (!expected[i])
            return i;
}

static void fill_half(void)
{
    for (size_t i = 0; i < HOLDERS; i += 2)
        fill(i);
}

static void clear_holder(size_t i)
{
    pa_store(&holders[i]->slots[0], NULL);
    expected[i] = 0;
}

static void put_in_holder(size_t i, void *p, uint64_t id)
{
    pa_store(&holders[i]->slots[0], p);
    expected[i] = id;
}

#endif
