/* frames.c - walking the Python stack of the calling thread from inside malloc.
 *
 * Owns `layout`, set once with the GIL held.  The walk runs wherever the interpreter, or an extension, calls malloc:
 * it must not allocate, create frame objects (that can start Python's collector, which runs code), take or change a
 * reference, or wait.  CPython's public calls for frames do some of that, so the interpreter's own frames are read,
 * which are whole at any time: a frame is linked when its code is set, and its line follows from the instruction
 * pointer by PyCode_Addr2Line, which only reads (the line table from its beginning, so it is asked once a line; later
 * samples name the line by a hash).
 *
 * Where the fields lie is no part of CPython's interface, but it is fixed within a minor version; the table holds the
 * offsets of CPython 3.9 to 3.13.  Before it is used, the stack that it gives is compared with the one that the public
 * calls give, line by line; if they differ in anything, or the version is another one, there are no Python lines.
 *
 * Only a thread that holds the GIL walks, and only its own frames: it does when the thread state that the GIL was last
 * taken with is the one that belongs to the thread.  In subinterpreters the two differ, and stacks are native.
 */
#include "python/frames.h"

#include <frameobject.h>
#include <stddef.h>
#include <string.h>

enum { FUNCTION_BYTES = 256, FILE_BYTES = 768, COMPARED_MAX = 10000 };

/* Offsets in bytes. */
typedef struct frame_layout {
    unsigned version;           /* PY_VERSION_HEX >> 16 */
    int thread_to_frame;        /* in PyThreadState: the current frame, or what holds it */
    int holder_to_frame;        /* in what holds it; -1: PyThreadState does */
    int previous, code, instruction;
    int instructions;           /* in PyCodeObject: the first one; 0: `instruction` is an index into them */
    int instruction_bytes;      /* then: of one */
    int owner;                  /* a byte, NOT_PYTHON: the frame is no Python function's; -1: all are */
    int name;                   /* in PyCodeObject: the qualified name, or the name */
    int lines;                  /* in PyCodeObject: the line table */
} frame_layout;

enum { NOT_PYTHON = 3 };

static const frame_layout layouts[] = {
    {0x0309, 24, -1, 24, 32, 104, 0, 1, -1, 112, 120},
    {0x030a, 24, -1, 24, 32, 96, 0, 2, -1, 112, 120},
    {0x030b, 56, 8, 48, 32, 56, 184, 0, -1, 128, 136},
    {0x030c, 56, 0, 8, 0, 56, 192, 0, 70, 128, 136},
    {0x030d, 72, -1, 8, 0, 56, 200, 0, 70, 128, 136},
};

static const frame_layout *layout; /* NULL: not known, or not what it should be */

static const void *word_at(const void *base, int offset)
{
    const void *word;
    memcpy(&word, (const char *)base + offset, sizeof word);
    return word;
}

/* ---- Frames ---- */

static bool is_python(const frame_layout *l, const void *frame)
{
    return (l->owner < 0 || ((const char *)frame)[l->owner] != NOT_PYTHON) && word_at(frame, l->code);
}

/* frame or the nearest one before it that is a Python function's. */
static const void *skip(const frame_layout *l, const void *frame)
{
    while (frame && !is_python(l, frame))
        frame = word_at(frame, l->previous);
    return frame;
}

static const void *current(const frame_layout *l, const PyThreadState *thread)
{
    const void *frame = word_at(thread, l->thread_to_frame);
    if (l->holder_to_frame >= 0)
        frame = word_at(frame, l->holder_to_frame);
    return skip(l, frame);
}

static const void *caller(const frame_layout *l, const void *frame)
{
    return skip(l, word_at(frame, l->previous));
}

static PyCodeObject *code_of(const frame_layout *l, const void *frame)
{
    return (PyCodeObject *)(uintptr_t)word_at(frame, l->code);
}

/* Of the instruction that the frame is at, in bytes; below 0: not begun. */
static int offset_of(const frame_layout *l, const void *frame)
{
    int offset;
    const char *code = (const char *)code_of(l, frame);
    if (l->instructions)
        return (int)((const char *)word_at(frame, l->instruction) - (code + l->instructions));
    memcpy(&offset, (const char *)frame + l->instruction, sizeof offset);
    return offset * l->instruction_bytes;
}

static int line_of(const frame_layout *l, const void *frame)
{
    PyCodeObject *code = code_of(l, frame);
    int offset = offset_of(l, frame), line = PyCode_Addr2Line(code, offset < 0 ? -1 : offset);
    return line > 0 ? line : code->co_firstlineno;
}

/* ---- Hashes ---- */

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9fb21c651e98df25u;
    return hash ^ hash >> 32;
}

static uint64_t mix_bytes(uint64_t hash, const void *bytes, size_t nbytes)
{
    const char *at = bytes;
    uint64_t word;
    hash = mix(hash, nbytes);
    for (; nbytes >= sizeof word; at += sizeof word, nbytes -= sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, at, nbytes);
    return mix(hash, word);
}

static uint64_t mix_text(uint64_t hash, PyObject *text)
{
    if (!text || !PyUnicode_Check(text))
        return mix(hash, 0);
    unsigned kind = PyUnicode_KIND(text);
    return mix_bytes(mix(hash, kind), PyUnicode_DATA(text), (size_t)PyUnicode_GET_LENGTH(text) * kind);
}

/* Of everything that a line consists of, by content: objects come and go, and others get their addresses. */
static uint64_t key_of(const frame_layout *l, const void *frame)
{
    PyCodeObject *code = code_of(l, frame);
    uint64_t hash = mix((uint64_t)code->co_firstlineno << 32, (uint32_t)offset_of(l, frame));
    hash = mix_text(hash, (PyObject *)(uintptr_t)word_at(code, l->name));
    hash = mix_text(hash, code->co_filename);
    PyObject *lines = (PyObject *)(uintptr_t)word_at(code, l->lines);
    if (lines && PyBytes_Check(lines))
        hash = mix_bytes(hash, PyBytes_AS_STRING(lines), (size_t)PyBytes_GET_SIZE(lines));
    return hash ? hash : 1;
}

/* ---- Text ---- */

static size_t put_utf8(char *out, Py_UCS4 c)
{
    if (c >= 0xd800 && c < 0xe000)
        c = '?';
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(0xf00 >> n | c);
    return n;
}

/* The end of a str that fits, as UTF-8; PyUnicode_AsUTF8 allocates. */
static size_t utf8(PyObject *text, char *out, size_t capacity)
{
    if (!text || !PyUnicode_Check(text))
        return 0;
    Py_ssize_t length = PyUnicode_GET_LENGTH(text), most = (Py_ssize_t)capacity / 4;
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    size_t n = 0;
    if (PyUnicode_IS_ASCII(text))
        most = (Py_ssize_t)capacity;
    for (Py_ssize_t i = length > most ? length - most : 0; i < length; i++)
        n += put_utf8(out + n, PyUnicode_READ(kind, data, i));
    return n;
}

/* ---- The walk ---- */

static pa_profile_answer spell_out(const frame_layout *l, const void *frame, uint64_t key, pa_profile_frame found,
                                   void *context)
{
    char function[FUNCTION_BYTES], file[FILE_BYTES];
    PyCodeObject *code = code_of(l, frame);
    PyObject *name = (PyObject *)(uintptr_t)word_at(code, l->name);
    pa_profile_line line = {
        .function = function,
        .file = file,
        .function_bytes = utf8(name, function, sizeof function),
        .file_bytes = utf8(code->co_filename, file, sizeof file),
        .line = (uint32_t)line_of(l, frame),
        .function_line = (uint32_t)code->co_firstlineno,
    };
    return found(context, key, &line);
}

static void walk(pa_profile_frame found, void *context)
{
    const frame_layout *l = layout;
    if (!l || !Py_IsInitialized())
        return;
    PyThreadState *mine = PyGILState_GetThisThreadState();
    if (!mine || mine != _PyThreadState_UncheckedGet())
        return;
    for (const void *frame = current(l, mine); frame; frame = caller(l, frame)) {
        uint64_t key = key_of(l, frame);
        pa_profile_answer answer = found(context, key, NULL);
        if (answer == PA_PROFILE_UNKNOWN)
            answer = spell_out(l, frame, key, found, context);
        if (answer == PA_PROFILE_ENOUGH)
            return;
    }
}

/* ---- Is it as the table says? ---- */

static bool is_same(const frame_layout *l, const void *frame, PyFrameObject *public)
{
    PyCodeObject *code = PyFrame_GetCode(public);
    PyObject *name = (PyObject *)(uintptr_t)word_at(code, l->name);
    bool same = code_of(l, frame) == code && line_of(l, frame) == PyFrame_GetLineNumber(public) &&
                PyUnicode_Check(name) && PyBytes_Check((PyObject *)(uintptr_t)word_at(code, l->lines));
    Py_DECREF(code);
    return same;
}

static bool is_right(const frame_layout *l)
{
    PyFrameObject *public = PyEval_GetFrame();
    const void *frame = current(l, PyThreadState_Get());
    bool same = public != NULL;
    Py_XINCREF(public);
    for (int i = 0; same && public && i < COMPARED_MAX; i++) {
        same = frame && is_same(l, frame, public);
        PyFrameObject *back = PyFrame_GetBack(public);
        Py_DECREF(public);
        public = back;
        frame = same ? caller(l, frame) : NULL;
    }
    same = same && !frame == !public;
    Py_XDECREF(public);
    return same;
}

int pa_frames_install(void)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && !layout; i++)
        if (layouts[i].version == PY_VERSION_HEX >> 16 && is_right(&layouts[i]))
            layout = &layouts[i];
    if (layout)
        pa_profile_set_walker(walk, (const void *)(uintptr_t)&_PyEval_EvalFrameDefault);
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(profile_sees_python_doc, "profile_sees_python()\n--\n\n"
                                      "Do the stacks of heap profiles have lines of Python code?  Not in versions of "
                                      "CPython that are not known.");

static PyObject *profile_sees_python(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(layout != NULL);
}

PyDoc_STRVAR(profile_finish_doc, "profile_finish()\n--\n\n"
                                 "Writes the file that PYALLOC_PROFILE asks for now, not at the exit of the process, "
                                 "by when Python has freed its objects.  False: there is none.");

static PyObject *profile_finish(PyObject *module, PyObject *unused)
{
    bool written;
    Py_BEGIN_ALLOW_THREADS
    written = pa_profile_finish();
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(written);
}

PyMethodDef pa_frames_methods[] = {
    {"profile_finish", profile_finish, METH_NOARGS, profile_finish_doc},
    {"profile_sees_python", profile_sees_python, METH_NOARGS, profile_sees_python_doc},
    {NULL, NULL, 0, NULL},
};
