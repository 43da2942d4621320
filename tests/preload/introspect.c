/* introspect.c - what a program may ask its malloc: mallinfo, malloc_trim, mallopt, malloc_stats, malloc_info.
 *
 * malloc_info's XML goes to stdout, malloc_stats' text to stderr; "not so" and exit code 1 on a wrong answer.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUIRE(cond) ((cond) ? (void)0 : (fprintf(stderr, "line %d: not so: %s\n", __LINE__, #cond), exit(1)))

enum { BLOCKS = 2000, BLOCK_BYTES = 3000, BIG_BYTES = 40 << 20 };

int main(void)
{
    static char *blocks[BLOCKS];
    void (*cfree)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "cfree"); /* nothing to link with */
    REQUIRE(cfree != NULL);
    struct mallinfo2 before = mallinfo2();
    REQUIRE(before.arena >= before.uordblks && before.arena == before.uordblks + before.fordblks);
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i] = malloc(BLOCK_BYTES), 1, BLOCK_BYTES);
    struct mallinfo2 full = mallinfo2();
    REQUIRE(full.uordblks - before.uordblks >= (size_t)BLOCKS * BLOCK_BYTES);
    REQUIRE(full.uordblks - before.uordblks <= (size_t)BLOCKS * (BLOCK_BYTES + 100));
    REQUIRE((size_t)mallinfo().uordblks == full.uordblks);
    for (int i = 0; i < BLOCKS; i++)
        cfree(blocks[i]);
    REQUIRE(mallinfo2().uordblks < before.uordblks + 10000);

    char *big = malloc(BIG_BYTES);
    memset(big, 1, BIG_BYTES);
    free(big);
    REQUIRE(mallinfo2().keepcost >= BIG_BYTES);
    REQUIRE(malloc_trim(0) == 1);
    REQUIRE(mallinfo2().keepcost == 0 && mallinfo2().arena < BIG_BYTES);
    REQUIRE(malloc_trim(0) == 0); /* nothing is left to give */
    REQUIRE(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(-99, -99) == 1);

    REQUIRE(malloc_usable_size(NULL) == 0);
    void *p = pvalloc(1);
    REQUIRE((uintptr_t)p % (uintptr_t)getpagesize() == 0 && malloc_usable_size(p) >= (size_t)getpagesize());
    free(p);
    p = valloc(10);
    REQUIRE((uintptr_t)p % (uintptr_t)getpagesize() == 0);
    free(p);
    errno = 0;
    REQUIRE(pvalloc(SIZE_MAX - 1) == NULL && errno == ENOMEM);

    malloc_stats();
    REQUIRE(malloc_info(1, stdout) == EINVAL);
    REQUIRE(malloc_info(0, stdout) == 0);
    return 0;
}
