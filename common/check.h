/*
 * check.h - assertions that stay on in every build.
 *
 * A failed CHECK is a bug of ours: the process says where and ends (abort), because going on
 * from a state that cannot be is how a ledger gets a wrong line. Never used on a peer's data.
 */
#ifndef CLOISTER_COMMON_CHECK_H
#define CLOISTER_COMMON_CHECK_H

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0))                                                     \
            check_failed(#condition, __FILE__, __LINE__);                                          \
    } while (0)

_Noreturn void check_failed(const char *condition, const char *file, int line);

#endif
