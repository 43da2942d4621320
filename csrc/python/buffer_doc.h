/* buffer_doc.h - the docstrings of Buffer, alloc() and empty(); included by buffer.c alone.
 *
 * The first line of each is the signature that inspect and stubtest read.
 */
#ifndef PA_PYTHON_BUFFER_DOC_H
#define PA_PYTHON_BUFFER_DOC_H

#include "python/core.h"

PyDoc_STRVAR(alloc_doc,
"alloc($module, /, nbytes, *, zero=True, align=16)\n--\n\n"
"A new Buffer of nbytes bytes, zeroed unless zero is false.\n\n"
"The address is a multiple of align, a power of two; less than 16 means 16.\n"
"Pages that come fresh from the operating system are known to be zero and are\n"
"not touched, so a large zeroed Buffer costs memory only where it is used.\n\n"
"Raises ValueError (nbytes negative, align not a power of two), OverflowError\n"
"(nbytes does not fit Py_ssize_t) and OutOfMemoryError.  Any thread may call it;\n"
"the GIL is let go while 16 MiB or more are zeroed.\n\n"
"Go counterpart: make([]byte, n), without its garbage collection.");

PyDoc_STRVAR(empty_doc,
"empty($module, /, nbytes)\n--\n\n"
"A new Buffer of nbytes bytes with undefined contents, aligned to 16 bytes.\n\n"
"The contents are those of memory freed before in this process: write before\n"
"you read, or send, them.\n\n"
"Raises ValueError (nbytes negative), OverflowError (nbytes does not fit\n"
"Py_ssize_t) and OutOfMemoryError.  Any thread may call it.\n\n"
"Go counterpart: runtime.mallocgc(n, nil, false), without its garbage collection.");

PyDoc_STRVAR(free_doc,
"free($self, /)\n--\n\n"
"Gives the memory back now; the second call does nothing.\n\n"
"Raises BufferError while the Buffer is exported (memoryview, NumPy array, DLPack\n"
"consumer).  Afterwards everything but freed, repr() and bool() raises ValueError.\n"
"A Buffer that is dropped frees itself.  Go counterpart: none; Go collects.");

PyDoc_STRVAR(resize_doc,
"resize($self, /, nbytes)\n--\n\n"
"Changes the length to nbytes bytes, in place where the block allows it.\n\n"
"The first min(old, new) bytes stay.  New bytes are zero when the Buffer was made\n"
"zeroed, undefined when it was not (empty(), zero=False).  The address may change;\n"
"its alignment stays.\n\n"
"Raises ValueError (nbytes negative, Buffer freed), OverflowError, BufferError\n"
"(exported) and OutOfMemoryError; the Buffer is then as it was before.\n"
"Go counterpart: append() or slices.Grow.");

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nThe Buffer itself; ValueError when it is freed.");

PyDoc_STRVAR(exit_doc,
"__exit__($self, /, *args)\n--\n\nCalls free(), and so raises BufferError while exported.");

PyDoc_STRVAR(sizeof_doc, "__sizeof__($self, /)\n--\n\nBytes of the object and of the block behind it.");

PyDoc_STRVAR(reduce_doc,
"__reduce__($self, /)\n--\n\nRefuses with TypeError: pickle bytes(buf) instead.");

PyDoc_STRVAR(reduce_ex_doc,
"__reduce_ex__($self, protocol, /)\n--\n\nRefuses with TypeError: pickle bytes(buf) instead.");

PyDoc_STRVAR(dlpack_doc,
"__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
"A DLPack capsule over the memory (uint8, one dimension, CPU) without a copy.\n\n"
"The memory stays until the consumer drops its tensor, on whatever thread, even\n"
"when the Buffer is gone; free() and resize() raise BufferError until then.  With\n"
"copy=True the capsule holds a copy.  Raises ValueError (freed, stream not None),\n"
"BufferError (another device) and OutOfMemoryError.");

PyDoc_STRVAR(dlpack_device_doc, "__dlpack_device__($self, /)\n--\n\n(1, 0): memory of the CPU.");

PyDoc_STRVAR(buffer_doc,
"Raw memory outside the Python heap; made by alloc() and empty().\n\n"
"Supports the buffer protocol (writable, one dimension, format 'B'): memoryview(buf),\n"
"numpy.frombuffer(buf), sock.recv_into(buf), file.readinto(buf) use the memory\n"
"without a copy, and DLPack does too.  Index and slice through memoryview(buf).\n"
"True when it holds at least one byte.  Equality is identity.\n\n"
"Freed when the last reference goes, by free(), or at the end of a with block;\n"
"never while it is exported.  Methods may be called from any thread that holds the\n"
"GIL; the bytes are not locked.");

#endif
