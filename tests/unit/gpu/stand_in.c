#include "tests/unit/gpu/stand_in.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];

static void file_remove(void)
{
    (void)unlink(path);
}

void stand_in_write(const char *lines, const char *more)
{
    char fresh[80];
    if (path[0] == '\0') {
        (void)snprintf(path, sizeof path, "/tmp/nvml-stand-in-%ld", (long)getpid());
        assert_int_equal(setenv("NVML_STAND_IN", path, 1), 0);
        atexit(file_remove);
    }
    /* renamed into place, so that no reader sees half of it */
    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *f = fopen(fresh, "we");
    assert_non_null(f);
    assert_true(fprintf(f, "%s%s", lines, more) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(fresh, path), 0);
}
