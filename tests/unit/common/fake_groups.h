/*
 * fake_groups.h - a process whose cgroups have the limits that a test gives them.
 */
#ifndef CLOISTER_TESTS_UNIT_COMMON_FAKE_GROUPS_H
#define CLOISTER_TESTS_UNIT_COMMON_FAKE_GROUPS_H

#include <stdbool.h>
#include <stdint.h>

/* Runs `body` in a process of its own, to which the cgroup above its own has a limit of so many
 * bytes and has `used` of them, `files` of these in pages of files that were not used lately. Gives
 * what `body` returns, 0 to 100; -1 where this user may not mount. */
int fake_groups_run(uint64_t limit, uint64_t used, uint64_t files, int (*body)(void));

#endif
