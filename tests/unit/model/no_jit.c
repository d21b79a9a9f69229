/*
 * no_jit.c - takes PCRE2's just-in-time compiler away from the program it is linked into, as a
 * service manager does that forbids memory both writable and executable.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include <pcre2.h>

int pcre2_jit_compile(pcre2_code *code, uint32_t options)
{
    (void)code;
    (void)options;
    return PCRE2_ERROR_NOMEMORY;
}
