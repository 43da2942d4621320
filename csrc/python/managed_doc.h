/* managed_doc.h - the docstrings of managed objects and of the collector's controls, for the files that name them.
 *
 * The first line of each function's is the signature that inspect and stubtest read.  Every file uses some of
 * them only.
 */
#ifndef PA_PYTHON_MANAGED_DOC_H
#define PA_PYTHON_MANAGED_DOC_H

#include "python/core.h"

#define PA_DOC static const char __attribute__((unused))

PA_DOC managed_doc[] =
"A reference to a managed object: base of Struct, RefArray and ManagedBytes.\n\n"
"The object lives in the collected heap, apart from Python's; it lives as long as\n"
"a reference from Python, or another reachable managed object, leads to it.  Two\n"
"references to one object are equal and hash alike; 'is' tells nothing.  Not\n"
"copied, not pickled.  Any thread.";

PA_DOC managed_address_doc[] =
"Address of the object; constant, objects do not move.  Two references are equal\n"
"when their addresses are.";

PA_DOC managed_reduce_doc[] = "__reduce__($self, /)\n--\n\nRefuses with TypeError.";
PA_DOC managed_reduce_ex_doc[] = "__reduce_ex__($self, protocol, /)\n--\n\nRefuses with TypeError.";
PA_DOC managed_sizeof_doc[] =
"__sizeof__($self, /)\n--\n\nBytes of the reference, of the object and, for arrays and bytes, of the items.";

PA_DOC struct_meta_doc[] =
"The class of Struct and its subclasses; it makes fields of annotations.";

PA_DOC struct_doc[] =
"Base class of managed objects with fields.\n\n"
"    class Node(pyalloc.Struct):\n"
"        left: pyalloc.Ref\n"
"        right: pyalloc.Ref[\"Node\"]\n"
"        key: pyalloc.int64\n\n"
"    node = Node(left=None, key=5)\n\n"
"Annotations are fields: Ref, typed Ref, int8 to int64, uint8 to uint64, float32,\n"
"float64, bool_; those of the base class come first.  The constructor takes them\n"
"by name or in order; others start as None or 0.  Values are checked: TypeError,\n"
"OverflowError.  Node.__fields__ shows offsets and sizes.\n\n"
"A subclass may have methods, properties and an __init__; no __slots__, no\n"
"__del__ (see add_cleanup) and no second Struct base class.  Classes are never\n"
"freed.  Go counterpart: a struct type, and &Node{...}.";

PA_DOC field_doc[] =
"One field of a Struct class; made by the class.  name, type, offset and nbytes tell the layout.";

PA_DOC field_target_doc[] =
"Class that the field refers to: Managed when any will do, None for a scalar.\n"
"NameError while a forward reference cannot be resolved.";

PA_DOC ref_array_doc[] =
"ref_array($module, /, n_or_iterable, type=None)\n--\n\n"
"A new RefArray of n times None, or of the items of an iterable.\n\n"
"type: a class of managed objects that every item must belong to (or be None).\n"
"Raises TypeError, ValueError (negative), OverflowError and OutOfMemoryError.  Any\n"
"thread; the GIL is let go while 1 MiB or more are made.\n"
"Go counterpart: make([]*T, n).";

PA_DOC refarray_doc[] =
"A managed array of references, of fixed length; see ref_array().\n\n"
"Indexing, slices (a slice is a copy), assignment to both, iteration, len(), in.";

PA_DOC refarray_fill_doc[] =
"fill($self, value, /)\n--\n\nSets every item to value, a managed object or None.";

PA_DOC managed_bytes_doc[] =
"managed_bytes($module, n_or_bytes, /)\n--\n\n"
"New ManagedBytes: n zero bytes, or a copy of an object with the buffer protocol.\n\n"
"Raises TypeError, ValueError (negative), OverflowError and OutOfMemoryError.  Any\n"
"thread; the GIL is let go while 1 MiB or more are made.\n"
"Go counterpart: make([]byte, n).";

PA_DOC bytes_doc[] =
"Managed memory without pointers, of fixed length; see managed_bytes().\n\n"
"It has the buffer protocol, writable: memoryview(b), numpy.frombuffer(b), bytes(b).\n"
"A view keeps the memory.";

PA_DOC weakref_doc[] =
"weakref(object, /)\n--\n\n"
"A weak reference to a managed object: calling it gives the object, or None once\n"
"the collector has found that nothing else leads there.\n\n"
"Unlike weakref.ref it follows the object, not the Python reference to it.  Raises\n"
"TypeError for other objects.  Any thread.  Go counterpart: weak.Make.";

PA_DOC weakref_class_getitem_doc[] = "__class_getitem__($type, item, /)\n--\n\nweakref[Node], for annotations.";

PA_DOC is_alive_doc[] =
"is_alive($module, weak, /)\n--\n\n"
"True while a weakref still gives its object.  Any thread.";

PA_DOC gc_collect_doc[] = "gc_collect($module, /)\n--\n\nOne full cycle, without the GIL; see collect().";
PA_DOC gc_set_percent_doc[] = "gc_set_percent($module, percent, /)\n--\n\npa_set_gc_percent.";
PA_DOC gc_set_memory_limit_doc[] = "gc_set_memory_limit($module, nbytes, /)\n--\n\npa_set_memory_limit.";
PA_DOC gc_set_mode_doc[] = "gc_set_mode($module, mode, /)\n--\n\npa_set_gc_mode.";
PA_DOC gc_set_trace_doc[] = "gc_set_trace($module, fd, /)\n--\n\npa_set_gctrace.";
PA_DOC gc_stats_row_doc[] =
"gc_stats_row($module, /)\n--\n\npa_gc_stats in declaration order; see read_gc_stats().";
PA_DOC gc_pauses_doc[] =
"gc_pauses($module, /)\n--\n\nRecent stops, newest first: (length, end in unix time), ns.";

PA_DOC cleanup_listen_doc[] =
"cleanup_listen($module, receiver, /)\n--\n\n"
"receiver() is called in the main thread after ids were queued; None: nobody.";
PA_DOC call_cleanup_doc[] =
"call_cleanup($module, func, args, /)\n--\n\nfunc(*args), exceptions to sys.unraisablehook.";
PA_DOC bind_field_doc[] = "bind_field($module, field, cls, /)\n--\n\nGives a forward reference its class.";
PA_DOC cleanup_add_doc[] = "cleanup_add($module, object, id, /)\n--\n\nQueues id once object is unreachable.";
PA_DOC cleanup_take_doc[] = "cleanup_take($module, /)\n--\n\nSome of the queued ids; [] when there are none.";

#endif
