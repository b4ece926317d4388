/* A C program's surroundings on Hexagon with Linux, for programs that have no C library: its start and its end, files,
   blocks of memory, and what LLVM has in compiler-rt for Hexagon: divisions, which there are no instructions for.
   Calls of the system: the number in r6, arguments from r0 on, trap0(#1); numbers are those of Linux's asm-generic/unistd.h. */
#include <stdint.h>

int main(void);

static long system_call(long number, long a, long b, long c) {
    register long r0 __asm__("r0") = a;
    register long r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c;
    register long r6 __asm__("r6") = number;
    __asm__ volatile("trap0(#1)" : "+r"(r0) : "r"(r1), "r"(r2), "r"(r6) : "memory");
    return r0;
}

void _start(void) {
    system_call(94, main(), 0, 0);
    for (;;) {
    }
}

long read(int file, void *data, unsigned long count) { return system_call(63, file, (long)data, (long)count); }
long write(int file, const void *data, unsigned long count) { return system_call(64, file, (long)data, (long)count); }

void *memset(void *to, int value, unsigned long count) {
    for (unsigned long i = 0; i < count; ++i) ((char *)to)[i] = (char)value;
    return to;
}

void *memmove(void *to, const void *from, unsigned long count) {
    char *t = to;
    const char *f = from;
    if (t < f)
        for (unsigned long i = 0; i < count; ++i) t[i] = f[i];
    else
        while (count--) t[count] = f[count];
    return to;
}

void *memcpy(void *to, const void *from, unsigned long count) { return memmove(to, from, count); }

/* What LLVM calls for blocks of at least 32 bytes, in whole multiples of 8. */
void *__hexagon_memcpy_likely_aligned_min32bytes_mult8bytes(void *to, const void *from, unsigned long count) {
    return memmove(to, from, count);
}

/* Division bit by bit. */
static uint64_t divide(uint64_t a, uint64_t b, uint64_t *rest) {
    uint64_t quotient = 0, left = 0;
    for (int bit = 63; bit >= 0; --bit) {
        left = left << 1 | (a >> bit & 1);
        if (left >= b) left -= b, quotient |= (uint64_t)1 << bit;
    }
    *rest = left;
    return quotient;
}

static uint64_t magnitude(int64_t x) { return x < 0 ? -(uint64_t)x : (uint64_t)x; }

uint64_t __hexagon_udivdi3(uint64_t a, uint64_t b) { return divide(a, b, &(uint64_t){0}); }
uint32_t __hexagon_udivsi3(uint32_t a, uint32_t b) { return (uint32_t)__hexagon_udivdi3(a, b); }

uint64_t __hexagon_umoddi3(uint64_t a, uint64_t b) {
    uint64_t rest;
    divide(a, b, &rest);
    return rest;
}
uint32_t __hexagon_umodsi3(uint32_t a, uint32_t b) { return (uint32_t)__hexagon_umoddi3(a, b); }

int64_t __hexagon_divdi3(int64_t a, int64_t b) {
    uint64_t quotient = __hexagon_udivdi3(magnitude(a), magnitude(b));
    return (int64_t)((a < 0) != (b < 0) ? -quotient : quotient);
}
int32_t __hexagon_divsi3(int32_t a, int32_t b) { return (int32_t)__hexagon_divdi3(a, b); }

int64_t __hexagon_moddi3(int64_t a, int64_t b) {
    uint64_t rest = __hexagon_umoddi3(magnitude(a), magnitude(b));
    return (int64_t)(a < 0 ? -rest : rest);
}
int32_t __hexagon_modsi3(int32_t a, int32_t b) { return (int32_t)__hexagon_moddi3(a, b); }
