/* registers.h - where the calling function stands, for who walks the stack by hand. */
#ifndef PA_REGISTERS_H
#define PA_REGISTERS_H

#include "base/config.h"

/* Instruction, stack and frame pointer. */
typedef struct pa_registers {
    uintptr_t pc, sp, fp;
} pa_registers;

/* On other machines than these they are 0, and nobody walks. */
#if defined(__x86_64__)
#define PA_KNOWS_REGISTERS 1
#define PA_READ_REGISTERS(r) \
    __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"            \
                     : "=&r"((r)->pc), "=&r"((r)->sp), "=&r"((r)->fp))
#else
#define PA_KNOWS_REGISTERS 0
#define PA_READ_REGISTERS(r) (void)(r)
#endif

PA_INLINE pa_registers pa_registers_here(void)
{
    pa_registers r = {0, 0, 0};
    PA_READ_REGISTERS(&r);
    return r;
}

#endif
