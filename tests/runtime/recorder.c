/* The functions of the CUDA driver that a direct launch calls. They note what they are given, and give what they are told to. */

#include <stdint.h>
#include <string.h>

typedef struct { int id; char pad[4]; char value[64]; } Attribute;
typedef struct {
    unsigned grid[3], block[3], shared;
    void *stream;
    Attribute *attributes;
    unsigned attributeCount;
} Config;

void *current_context;
int result_of_launch, result_of_encode, launches, encodings;
Config config;
Attribute attribute;
void *function;
int parameter_count, parameter_sizes[64];
char parameters[64][128];

int cuCtxGetCurrent(void **context) {
    *context = current_context;
    return 0;
}

int cuTensorMapEncodeTiled(char *map, int type, unsigned rank, uint64_t address, uint64_t *sizes, uint64_t *strides,
                           unsigned *box, unsigned *steps, int interleave, int swizzle, int promotion, int fill) {
    ++encodings;
    if (result_of_encode || (uintptr_t)map % 64) return 1;
    memset(map, 0, 128);
    int words[] = {type, rank, interleave, swizzle, promotion, fill};
    memcpy(map, &address, 8);
    memcpy(map + 8, words, sizeof words);
    for (unsigned i = 0; i < rank; ++i) {
        map[40 + i] = sizes[i], map[50 + i] = box[i], map[60 + i] = steps[i];
        if (i + 1 < rank) memcpy(map + 72 + 8 * i, strides + i, 8);
    }
    return 0;
}

int cuLaunchKernelEx(const Config *given, void *given_function, void **given_parameters, void **extra) {
    ++launches;
    if (result_of_launch || extra) return result_of_launch ? result_of_launch : 1;
    config = *given, function = given_function;
    if (given->attributeCount) attribute = *given->attributes;
    for (int i = 0; i < parameter_count; ++i) memcpy(parameters[i], given_parameters[i], parameter_sizes[i]);
    return 0;
}
