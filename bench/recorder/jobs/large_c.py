"""The job of trace gcc-c: writes a C file of 300 functions to stdout, for cc1 to compile.

The functions have loops, switches, list walks and calls, in a fixed pseudo-random mixture.
"""
import random

random.seed(3)
N = 300
print("#include <stdint.h>\n#include <stddef.h>")
print("struct item { int64_t key; double weight; struct item *next; char tag[12]; };")
for i in range(N):
    print(f"static int64_t work{i}(struct item *it, int64_t n, const unsigned char *p)")
    print(f"{{\n    int64_t s = {i}, t = n;")
    for j in range(random.randrange(3, 9)):
        shape = random.randrange(5)
        a, b = random.randrange(1, 99), random.randrange(1, 30)
        if shape == 0:
            print(f"    for (int64_t i{j} = 0; i{j} < n; i{j}++) s += p[i{j} & {b}] * {a} - (t ^ i{j});")
        elif shape == 1:
            cases = "".join(f" case {c}: t += s * {c + a}; break;" for c in range(b // 3 + 2))
            print(f"    switch (s & {b // 3 + 1}) {{{cases} default: t--; }}")
        elif shape == 2:
            body = f"if (q->key % {a + 1} == {b}) {{ s += q->key; q->weight *= 1.{b}; }}"
            print(f"    for (struct item *q = it; q != NULL; q = q->next) {body}")
        elif shape == 3:
            print(f"    while (t > {a}) {{ t = t / {b + 1}; s ^= t << {b % 7}; if (s < 0) s = -s; }}")
        elif i:
            print(f"    if ((s & {b}) == 0) s += work{random.randrange(i)}(it, t / 2, p + {b});")
    print("    return s + t;\n}")
calls = "".join(f"    s += work{i}(it, n + {i}, p);\n" for i in range(N))
print("int64_t work_all(struct item *it, int64_t n, const unsigned char *p)")
print(f"{{\n    int64_t s = 0;\n{calls}    return s;\n}}")
