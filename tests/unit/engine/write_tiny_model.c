/* write_tiny_model FILE [CONTEXT | SHAPE]: a tiny_model for tests that are no C programs, with so
 * many tokens of context, or of one of tiny_model.h's shapes. */
#include "tests/unit/engine/tiny_model.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct tiny_model m = tiny_model_default();
    char path[64];

    if (argc < 2 || argc > 3) {
        fputs("usage: write_tiny_model FILE [CONTEXT | SHAPE]\n", stderr);
        return 2;
    }
    if (argc == 3 && isdigit((unsigned char)argv[2][0])) {
        m.context = (uint32_t)atoi(argv[2]);
    } else if (argc == 3 && !tiny_model_shape(argv[2], &m)) {
        fprintf(stderr, "write_tiny_model: no shape %s; there are", argv[2]);
        for (size_t i = 0; i < tiny_model_shape_count(); i++)
            fprintf(stderr, " %s", tiny_model_shape_name(i));
        fputs("\n", stderr);
        return 2;
    }
    tiny_model_write(&m, path);
    if (rename(path, argv[1]) != 0) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
