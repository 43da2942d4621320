/* cancelled.c - a thread that is to be cancelled allocates until the heap has had several peaks, then lets it happen.
 *
 * malloc is no cancellation point, whatever an option makes it write.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int step;

static void *work(void *unused)
{
    (void)unused;
    while (atomic_load(&step) == 0)
        ;
    for (int i = 0; i < 100; i++) {
        char *block = malloc(1 << 20);
        if (block)
            memset(block, 1, 16);
    }
    atomic_store(&step, 2);
    pthread_testcancel();
    return NULL;
}

int main(void)
{
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, work, NULL) || pthread_cancel(thread))
        return 2;
    atomic_store(&step, 1);
    if (pthread_join(thread, &result))
        return 2;
    printf("%d %s\n", atomic_load(&step), result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
    return 0;
}
