/*
 * netns.h - hosts for tests: network namespaces with cables between them. Needs root and iproute2;
 * where they are not to be had, the test program ends with 77 and says why.
 */
#ifndef CLOISTER_TESTS_UNIT_COLL_NETNS_H
#define CLOISTER_TESTS_UNIT_COLL_NETNS_H

/* A command with two numbers in it; its exit status. */
int netns_run(const char *format, unsigned a, unsigned b);
/* Moves this process to a namespace of its own; not 0 where it may not. */
int netns_move_out(void);
/* Ends the program where no namespaces are to be had. */
void netns_require(void);
/* Says why, and ends the program with 77. */
void netns_skip(const char *why);

#endif
