/* gzip.c - a gzip file of stored blocks.
 *
 * Owns nothing, no locks.  Readers of profiles want gzip around them; the core does not link zlib for files of some
 * hundred KiB, and deflate (RFC 1951) has blocks that hold their bytes as they are, 65,535 at most.  The check sum is
 * CRC-32, four bits a step from a table of 16 entries.
 */
#include "api/gzip.h"

#include <errno.h>
#include <unistd.h>

enum { BLOCK_BYTES = 65535 };

static uint32_t crc32(const unsigned char *data, size_t nbytes)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = ~(uint32_t)0;
    for (size_t i = 0; i < nbytes; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static int write_all(int fd, const void *data, size_t nbytes)
{
    const char *at = data;
    while (nbytes) {
        ssize_t n = write(fd, at, nbytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        at += n;
        nbytes -= (size_t)n;
    }
    return 0;
}

static void put_little(unsigned char *out, uint64_t value, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++)
        out[i] = (unsigned char)(value >> 8 * i);
}

int pa_gzip_write(int fd, const unsigned char *data, size_t nbytes)
{
    static const unsigned char head[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}; /* no name, no time, no system */
    unsigned char block[5], tail[8];
    int error = write_all(fd, head, sizeof head);
    size_t done = 0;
    do {
        size_t n = nbytes - done < BLOCK_BYTES ? nbytes - done : BLOCK_BYTES;
        block[0] = done + n == nbytes; /* the last block, stored */
        put_little(block + 1, n, 2);
        put_little(block + 3, ~n, 2);
        if (error == 0)
            error = write_all(fd, block, sizeof block);
        if (error == 0)
            error = write_all(fd, data + done, n);
        done += n;
    } while (done < nbytes);
    put_little(tail, crc32(data, nbytes), 4);
    put_little(tail + 4, nbytes, 4);
    return error ? error : write_all(fd, tail, sizeof tail);
}
