/* profile_proto.h - the heap profile in the wire format of pprof's profile.proto. */
#ifndef PA_PROFILE_PROTO_H
#define PA_PROFILE_PROTO_H

#include "base/config.h"

/* Bytes that grow in memory mapped for them. */
typedef struct pa_proto_out {
    unsigned char *data;
    size_t len, capacity;
    bool failed;            /* out of memory: what comes is dropped */
} pa_proto_out;

/* Appends the profile as it is. 0 or ENOMEM. pa_profiling_lock held. */
int pa_profile_encode(pa_proto_out *out);
void pa_proto_free(pa_proto_out *out);

#endif
