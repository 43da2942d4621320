/* gzip.h - writes bytes as a gzip file (RFC 1952) without compressing them. */
#ifndef PA_GZIP_H
#define PA_GZIP_H

#include "base/config.h"

/* 0, or the errno of write(2). */
int pa_gzip_write(int fd, const unsigned char *data, size_t nbytes);

#endif
