/* hold.c - linked into a libpyalloc.so with yield points: lets test_gc_python.py hold a thread of its choice of point.
 *
 * Called through ctypes, which lets the GIL go meanwhile: a test's main thread can hold, look and release while the
 * threads that it tests have the GIL or not.
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/yield.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static bool armed[PA_YIELD_POINT_COUNT], held[PA_YIELD_POINT_COUNT];
static long met[PA_YIELD_POINT_COUNT];

static int number_of(const char *name)
{
#define X(point) #point,
    static const char *const names[] = {PA_YIELD_POINTS(X)};
#undef X
    for (int i = 0; i < PA_YIELD_POINT_COUNT; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

static void hook(int point)
{
    pthread_mutex_lock(&lock);
    met[point]++;
    pthread_cond_broadcast(&moved);
    if (armed[point] && !held[point]) {
        held[point] = true;
        while (armed[point])
            pthread_cond_wait(&moved, &lock);
        held[point] = false;
    }
    pthread_mutex_unlock(&lock);
}

/* From now on the first thread that comes to the point is held. */
PA_EXPORT void hold_at(const char *point)
{
    pthread_mutex_lock(&lock);
    armed[number_of(point)] = true;
    pthread_mutex_unlock(&lock);
    atomic_store(&pa_yield_hook, hook);
}

PA_EXPORT void hold_release(const char *point)
{
    pthread_mutex_lock(&lock);
    armed[number_of(point)] = false;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

/* How often threads came to the point. */
PA_EXPORT long hold_met(const char *point)
{
    pthread_mutex_lock(&lock);
    long n = met[number_of(point)];
    pthread_mutex_unlock(&lock);
    return n;
}

/* Waits until threads came to the point more than count times (is_held: until one is held there); false after
 * so many seconds. */
PA_EXPORT bool hold_wait(const char *point, long count, bool is_held, int seconds)
{
    int i = number_of(point);
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += seconds;
    int error = 0;
    pthread_mutex_lock(&lock);
    while ((is_held ? !held[i] : met[i] <= count) && error == 0)
        error = pthread_cond_timedwait(&moved, &lock, &end);
    bool ok = is_held ? held[i] : met[i] > count;
    pthread_mutex_unlock(&lock);
    return ok;
}
