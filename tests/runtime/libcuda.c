/* libcuda.so.1 as far as a launch goes, in C, so that what ctypes passes is what a driver gets: handles of 64 bits, structures as
   cuda.h has them. Its GPU has one kernel, `copy(x, out, n, 0, 0)` of f32, which runs on the host's memory. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef struct { int id; char pad[4]; union { char bytes[64]; struct { unsigned x, y, z; } cluster; } value; } CUlaunchAttribute;
typedef struct {
    unsigned gridX, gridY, gridZ, blockX, blockY, blockZ, shared;
    void *stream;
    CUlaunchAttribute *attributes;
    unsigned attributeCount;
} CUlaunchConfig;

static void *const CONTEXT = (void *)0x7f01234567890000, *const MODULE = (void *)0x7f02345678900000,
                  *const FUNCTION = (void *)0x7f03456789010000;
static __thread void *current;

CUresult cuInit(unsigned flags) { return 0; }
CUresult cuDeviceGetCount(int *count) { *count = 1; return 0; }
CUresult cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal != 0; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 132;
    return 0;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int device) { *context = CONTEXT; return 0; }
CUresult cuCtxGetCurrent(void **context) { *context = current; return 0; }
CUresult cuCtxSetCurrent(void *context) { current = context; return context != CONTEXT && context != NULL; }
CUresult cuThreadExchangeStreamCaptureMode(int *mode) {
    static int now;
    int before = now;
    now = *mode, *mode = before;
    return now < 0 || now > 2;
}
CUresult cuPointerGetAttribute(void *value, int attribute, uint64_t address) { *(int *)value = 0; return address >> 32 == 0; }
CUresult cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR_INVALID_VALUE"; return 0; }
CUresult cuGetErrorString(int code, const char **text) { *text = "invalid argument"; return 0; }

CUresult cuModuleLoadData(void **module, const void *image) {
    *module = MODULE;
    return current != CONTEXT || memcmp(image, "\177ELF", 4) != 0;
}
CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = FUNCTION;
    return module != MODULE || strcmp(name, "copy") != 0;
}
CUresult cuFuncLoad(void *function) { return function != FUNCTION; }
CUresult cuFuncGetAttribute(int *value, int attribute, void *function) { *value = 7; return function != FUNCTION; }

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, void *function, void **parameters, void **extra) {
    if (current != CONTEXT || function != FUNCTION || extra || config->attributeCount || config->stream) return 1;
    int n = *(int *)parameters[2];
    if (config->gridX != (n + 63) / 64u || config->gridY != 1 || config->gridZ != 1 || config->blockX % 32) return 1;
    if (*(uint64_t *)parameters[3] || *(uint64_t *)parameters[4]) return 1;
    memcpy(*(void **)parameters[1], *(void **)parameters[0], 4 * (size_t)n);
    return 0;
}
