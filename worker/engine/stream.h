/*
 * stream.h - from drawn tokens to what may be handed out: whole characters, and never a byte that
 * could still turn out to be the beginning of a stop string.
 *
 * Tokens are handed out whole and in order, each with exactly its own bytes. A token waits while
 * its end lies inside a character that later bytes may complete, or while a stop string can still
 * begin at or before its end. Bytes that can no longer become UTF-8 pass as they are: what the
 * model says is delivered, also where it is broken.
 *
 * The stop string that is completed first, byte by byte, ends the text before its first byte; of
 * two that the same byte completes the longer one counts. So the text does not depend on where the
 * token borders lie. All tokens up to the one that completed the stop are still handed out.
 *
 * The state after n tokens depends on these n tokens alone: pushing the ids of an earlier attempt
 * and dropping them gives the state that attempt was in.
 *
 * Pure: no clock, thread, file. Ownership: caller's struct; stream_fini frees what it holds.
 */
#ifndef CLOISTER_WORKER_ENGINE_STREAM_H
#define CLOISTER_WORKER_ENGINE_STREAM_H

#include "common/buf.h"
#include "common/err.h"
#include "worker/engine/sampling.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stream_stop; /* one stop string as a matching automaton */

struct stream {
    struct stream_stop *stops;
    size_t n_stops;
    struct buf held; /* bytes of the tokens that wait */
    size_t *ends;    /* [n_held] end of each waiting token in `held` */
    size_t n_held, held_capacity;
    size_t clear_at_next; /* tokens taken, whose bytes the next push removes */
    uint32_t taken;       /* tokens handed out or dropped so far */
    size_t text_end;      /* where a stop string cut the text; valid when stopped */
    bool stopped;
    bool ended;
};

/* Copies the stop strings. ERR_INVALID where one is empty or longer than LIMIT_STOP_BYTES,
 * ERR_TOO_LARGE above LIMIT_STOP_STRINGS. On error there is nothing to free. */
enum err stream_init(struct stream *s, const struct sampling_stop *stops, size_t n_stops,
                     struct errbuf *eb);
void stream_fini(struct stream *s);

/* The next token and its bytes (possibly none). Not after the stream is stopped or ended.
 * ERR_NO_MEMORY leaves the stream as it was. */
enum err stream_push(struct stream *s, const void *bytes, size_t size);

/* A stop string is complete: no further token belongs to the completion. */
bool stream_stopped(const struct stream *s);

/* No further token comes: everything that waits may go. */
void stream_end(struct stream *s);

struct stream_piece {
    uint32_t first; /* index of the first token in the completion */
    uint32_t n_tokens;
    const char *text; /* valid until the next push, not NUL-terminated */
    size_t text_size;
    const size_t *ends; /* [n_tokens] where each token's bytes end in text; behind text_size where
                         * a stop string cut it. Valid as long as text */
};

/* What may be handed out now; false when there is nothing. */
bool stream_take(struct stream *s, struct stream_piece *ret_piece);

/* The piece just taken could not be handed out: its tokens wait again. */
void stream_put_back(struct stream *s);

/* Takes everything that waits without handing it out: these tokens were delivered before. */
void stream_drop(struct stream *s);

#endif
