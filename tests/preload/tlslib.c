/* tlslib.c - a library with much thread-local storage: the C library allocates it with malloc when it is touched. */
#include <stdlib.h>
#include <string.h>

static __thread char *block;
static __thread char room[100000];

static __attribute__((constructor)) void load(void)
{
    free(malloc(100));
    block = malloc(1000);
}

static __attribute__((destructor)) void unload(void)
{
    free(block);
    free(malloc(100));
}

int tls_use(int n)
{
    memset(room, n, sizeof room);
    char *copy = malloc(sizeof room);
    memcpy(copy, room, sizeof room);
    int result = copy[sizeof room - 1];
    free(copy);
    return result;
}
