/* dlpack.h - the part of the DLPack 1.0 in-memory format that one-dimensional bytes on the CPU need.
 *
 * Names and layout are those of https://dmlc.github.io/dlpack/latest/c_api.html; they are an ABI
 * between libraries that know nothing of each other.
 */
#ifndef PA_PYTHON_DLPACK_H
#define PA_PYTHON_DLPACK_H

#include <stdint.h>

enum { PA_DL_CPU = 1, PA_DL_UINT = 1, PA_DL_FLAG_IS_COPIED = 2 };

typedef struct DLDevice {
    int32_t device_type;
    int32_t device_id;
} DLDevice;

typedef struct DLDataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} DLDataType;

typedef struct DLTensor {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides;        /* in elements */
    uint64_t byte_offset;
} DLTensor;

/* The capsule "dltensor": every producer and consumer knows it. */
typedef struct DLManagedTensor {
    DLTensor dl_tensor;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;

typedef struct DLPackVersion {
    uint32_t major;
    uint32_t minor;
} DLPackVersion;

/* The capsule "dltensor_versioned", since DLPack 1.0; for a consumer that passes max_version. */
typedef struct DLManagedTensorVersioned {
    DLPackVersion version;
    void *manager_ctx;
    void (*deleter)(struct DLManagedTensorVersioned *self);
    uint64_t flags;
    DLTensor dl_tensor;
} DLManagedTensorVersioned;

#endif
