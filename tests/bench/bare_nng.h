/*
 * bare_nng.h - what nng's own sockets do, the measure for our transport: a raw REP server that
 * sends back what it gets, and REQ clients that keep a number of requests under way each.
 *
 * Thread: one caller at a time.
 */
#ifndef CLOISTER_BENCH_BARE_NNG_H
#define CLOISTER_BENCH_BARE_NNG_H

#include <nng/nng.h>
#include <stddef.h>
#include <stdint.h>

/* A raw REP socket that listens on a free port of loopback; ret_url as for nng_dial. */
nng_socket bare_nng_listen(char ret_url[64]);

struct bare_nng_echo;

/* Ownership: the caller ends it with bare_nng_echo_stop. */
struct bare_nng_echo *bare_nng_echo_start(char ret_url[64]);
void bare_nng_echo_stop(struct bare_nng_echo *echo);

/* Echoes a second: n_clients REQ sockets, each with `window` requests of `size` bytes under way,
 * n_requests in all. */
double bare_nng_echo_rate(uint32_t n_clients, uint32_t window, uint32_t n_requests, size_t size);

#endif
