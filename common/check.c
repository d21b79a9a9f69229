#include "common/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "cloister: check failed: %s at %s:%d\n", condition, file, line);
    abort();
}
