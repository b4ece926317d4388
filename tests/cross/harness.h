/* What a generated main program needs of a machine: bytes from standard input, bytes to standard output. */
#include <stdint.h>

long read(int file, void *data, unsigned long count);
long write(int file, const void *data, unsigned long count);

static int receive(void *data, unsigned long count) {
    for (char *at = data; count;) {
        long done = read(0, at, count);
        if (done <= 0) return 0;
        at += done, count -= done;
    }
    return 1;
}

static int send(const void *data, unsigned long count) {
    for (const char *at = data; count;) {
        long done = write(1, at, count);
        if (done <= 0) return 0;
        at += done, count -= done;
    }
    return 1;
}
