/* moves.c - metrics that only a C program can move: scanned frames, assists, marking on idle processors, ticks.
 *
 *     moves CASE | list
 *
 * Each case reads the metric, does what should move it until it has moved, for 60 seconds at most, and says
 * "NAME moved".  Assists and idle marking depend on which thread gets a processor when; hence until.
 */
#include "gc_test.h"

static const double PATIENCE_S = 60;

static double metric(const char *name)
{
    static pa_snapshot s;
    pa_read_snapshot(&s);
    pa_metric_info info;
    pa_metric_value value;
    for (int i = 0; pa_metric(i, &info) && pa_metric_of(&s, i, &value); i++)
        if (strcmp(info.name, name) == 0)
            return info.kind == PA_METRIC_REAL ? value.real : (double)value.count;
    REQUIRE(false, "no metric %s", name);
    return 0;
}

/* ---- Frames ---- */

static void collect_with_a_frame(void)
{
    enum { SLOTS = 16 };
    void *slots[SLOTS];
    pa_frame frame;
    const pa_type *type = node_type(1);
    enter();
    pa_frame_push(&frame, slots, SLOTS);
    for (int i = 0; i < SLOTS; i++)
        slots[i] = new_node(type, (uint64_t)i);
    pa_leave();
    pa_gc();
    enter();
    for (int i = 0; i < SLOTS; i++)
        met_as(slots[i], (uint64_t)i);
    pa_frame_pop(&frame);
    pa_leave();
}

/* ---- A heap that takes time to mark ---- */

enum { LIST_NODES = 200000 };

/* In a root that stays. */
static void build_list(void)
{
    static void *head;
    const pa_type *type = node_type(1);
    enter();
    if (!load_plainly(&head)) {
        REQUIRE(pa_roots_add(&head, sizeof head, PA_ROOTS_BARRIERED) == 0, "errno %d", errno);
        for (uint64_t i = 0; i < LIST_NODES; i++) {
            node *n = new_node(type, i);
            pa_store(&n->slots[0], head);
            pa_store(&head, n);
        }
    }
    pa_leave();
}

/* Under GOGC=10: marking has hardly begun when the heap is at its goal. */
static void allocate_beside_marking(void)
{
    build_list();
    pa_set_gc_percent(10);
    enter();
    for (int i = 0; i < 200; i++)
        must(pa_new_bytes(64 * PA_KIB));
    pa_leave();
}

static void collect_with_nothing_else_to_do(void)
{
    build_list();
    pa_gc();
}

/* ---- Ticks ---- */

static void free_a_burst_and_go_on(void)
{
    enum { BLOCKS = 256, BYTES = 128 * PA_KIB };
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i] = must(pa_malloc(BYTES)), 1, BYTES);
    for (int i = 0; i < BLOCKS; i++)
        pa_free(blocks[i]);
    for (double end = seconds_now() + 3; seconds_now() < end;) /* slow paths while the peak is forgotten */
        pa_free(must(pa_malloc(8 * PA_MIB)));
}

static const struct {
    const char *name, *metric;
    void (*act)(void);
} cases[] = {
    {"frames", "/gc/scan/stack:bytes", collect_with_a_frame},
    {"assist", "/cpu/classes/gc/mark/assist:cpu-seconds", allocate_beside_marking},
    {"idle", "/cpu/classes/gc/mark/idle:cpu-seconds", collect_with_nothing_else_to_do},
    {"tick", "/pyalloc/released/tick:bytes", free_a_burst_and_go_on},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (argc == 2 && strcmp(argv[1], "list") == 0)
            printf("%s %s\n", cases[i].name, cases[i].metric);
        if (argc != 2 || strcmp(argv[1], cases[i].name) != 0)
            continue;
        double before = metric(cases[i].metric), deadline = seconds_now() + PATIENCE_S;
        do
            cases[i].act();
        while (metric(cases[i].metric) <= before && seconds_now() < deadline);
        REQUIRE(metric(cases[i].metric) > before, "%s stays at %g", cases[i].metric, before);
        printf("%s moved\n", cases[i].metric);
        return 0;
    }
    return argc == 2 && strcmp(argv[1], "list") == 0 ? 0 : 2;
}
