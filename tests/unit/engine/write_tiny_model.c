/* write_tiny_model FILE [CONTEXT]: a tiny_model for tests that are no C programs. */
#include "tests/unit/engine/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct tiny_model m = tiny_model_default();
    char path[64];

    if (argc < 2 || argc > 3) {
        fputs("usage: write_tiny_model FILE [CONTEXT]\n", stderr);
        return 2;
    }
    if (argc == 3)
        m.context = (uint32_t)atoi(argv[2]);
    tiny_model_write(&m, path);
    if (rename(path, argv[1]) != 0) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
