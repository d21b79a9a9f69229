#include "worker/engine/stream.h"

#include "common/check.h"
#include "common/limits.h"
#include "common/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Knuth-Morris-Pratt: `matched` bytes of the pattern are the longest that end the text so far;
 * fall_back[i] is the longest proper prefix of the pattern that also ends its first i bytes. */
struct stream_stop {
    uint8_t bytes[LIMIT_STOP_BYTES];
    uint16_t fall_back[LIMIT_STOP_BYTES + 1];
    uint16_t size;
    uint16_t matched;
};

static void stop_init(struct stream_stop *stop, const struct sampling_stop *from)
{
    uint16_t k = 0;

    memcpy(stop->bytes, from->bytes, from->size);
    stop->size = (uint16_t)from->size;
    stop->matched = 0;
    stop->fall_back[0] = 0;
    stop->fall_back[1] = 0;
    for (uint16_t i = 1; i < stop->size; i++) {
        while (k > 0 && stop->bytes[i] != stop->bytes[k])
            k = stop->fall_back[k];
        if (stop->bytes[i] == stop->bytes[k])
            k++;
        stop->fall_back[i + 1] = k;
    }
}

/* True when this byte completes the stop string. */
static bool stop_feed(struct stream_stop *stop, uint8_t byte)
{
    while (stop->matched > 0 && stop->bytes[stop->matched] != byte)
        stop->matched = stop->fall_back[stop->matched];
    if (stop->bytes[stop->matched] == byte)
        stop->matched++;
    return stop->matched == stop->size;
}

enum err stream_init(struct stream *s, const struct sampling_stop *stops, size_t n_stops,
                     struct errbuf *eb)
{
    memset(s, 0, sizeof *s);
    if (n_stops > LIMIT_STOP_STRINGS)
        return err_set(eb, ERR_TOO_LARGE, "%zu stop strings; at most %u are allowed", n_stops,
                       LIMIT_STOP_STRINGS);
    for (size_t i = 0; i < n_stops; i++)
        if (stops[i].size == 0 || stops[i].size > LIMIT_STOP_BYTES)
            return err_set(eb, ERR_INVALID, "stop string %zu has %zu bytes; 1 to %u are allowed",
                           i + 1, stops[i].size, LIMIT_STOP_BYTES);
    if (n_stops > 0) {
        s->stops = calloc(n_stops, sizeof *s->stops);
        if (s->stops == NULL)
            return err_set(eb, ERR_NO_MEMORY, "no memory for %zu stop strings", n_stops);
    }
    for (size_t i = 0; i < n_stops; i++)
        stop_init(&s->stops[i], &stops[i]);
    s->n_stops = n_stops;
    buf_init(&s->held);
    return ERR_OK;
}

void stream_fini(struct stream *s)
{
    if (s == NULL)
        return;
    free(s->stops);
    free(s->ends);
    buf_fini(&s->held);
    memset(s, 0, sizeof *s);
}

/* Forgets the bytes of tokens that were taken, which the caller may have been reading until now. */
static void stream_forget_taken(struct stream *s)
{
    size_t n = s->clear_at_next;

    if (n == 0)
        return;
    size_t bytes = s->ends[n - 1];
    if (bytes > 0)
        memmove(s->held.data, s->held.data + bytes, s->held.size - bytes);
    s->held.size -= bytes;
    for (size_t i = n; i < s->n_held; i++)
        s->ends[i - n] = s->ends[i] - bytes;
    s->n_held -= n;
    s->clear_at_next = 0;
}

enum err stream_push(struct stream *s, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;

    CHECK(!s->stopped && !s->ended);
    stream_forget_taken(s);
    if (s->n_held == s->held_capacity) {
        size_t capacity = s->held_capacity == 0 ? 16 : s->held_capacity * 2;
        size_t *ends = realloc(s->ends, capacity * sizeof *ends);
        if (ends == NULL)
            return ERR_NO_MEMORY;
        s->ends = ends;
        s->held_capacity = capacity;
    }
    if (size > 0 && !buf_reserve(&s->held, size)) {
        s->held.failed = false;
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < size && !s->stopped; i++) {
        size_t longest = 0;
        for (size_t k = 0; k < s->n_stops; k++)
            if (stop_feed(&s->stops[k], p[i]) && s->stops[k].size > longest)
                longest = s->stops[k].size;
        if (longest > 0) {
            size_t end = s->held.size + i + 1;
            /* A stop string that began in text delivered by an earlier attempt cannot be taken
             * back there; nothing is added after it. */
            s->text_end = end > longest ? end - longest : 0;
            s->stopped = true;
        }
    }
    if (size > 0)
        buf_append(&s->held, bytes, size);
    s->ends[s->n_held++] = s->held.size;
    return ERR_OK;
}

bool stream_stopped(const struct stream *s)
{
    return s->stopped;
}

void stream_end(struct stream *s)
{
    s->ended = true;
}

/* Length of the character that starts at p, or, for bytes that cannot be one, of the part that is
 * certain to be broken. 0 where the bytes end inside a sequence that may still become whole. */
static size_t character_size(const uint8_t *p, size_t size)
{
    uint32_t code;
    size_t tail, whole = utf8_decode(p, size, &code);

    if (whole > 0)
        return whole;
    if (utf8_tail_unfinished(p, size, &tail) && tail == size)
        return 0;
    return utf8_bad_length(p, size);
}

/* How many of the waiting tokens end at a character's border and before every byte in which a
 * stop string may begin. */
static size_t stream_ready(const struct stream *s)
{
    size_t safe = s->held.size, at = 0, ready = 0, token = 0;

    for (size_t k = 0; k < s->n_stops; k++) {
        size_t matched = s->stops[k].matched;
        size_t start = s->held.size > matched ? s->held.size - matched : 0;
        if (start < safe)
            safe = start;
    }
    for (;;) {
        while (token < s->n_held && s->ends[token] < at)
            token++;
        while (token < s->n_held && s->ends[token] == at && at <= safe)
            ready = ++token;
        if (at >= safe)
            return ready;
        size_t step = character_size(s->held.data + at, s->held.size - at);
        if (step == 0)
            return ready;
        at += step;
    }
}

bool stream_take(struct stream *s, struct stream_piece *ret_piece)
{
    bool all = s->stopped || s->ended;

    stream_forget_taken(s);
    size_t n = all ? s->n_held : stream_ready(s);
    if (n == 0)
        return false;
    size_t size = s->ends[n - 1];
    if (s->stopped && size > s->text_end)
        size = s->text_end;
    ret_piece->first = s->taken;
    ret_piece->n_tokens = (uint32_t)n;
    ret_piece->text = buf_str(&s->held);
    ret_piece->text_size = size;
    ret_piece->ends = s->ends;
    s->taken += (uint32_t)n;
    s->clear_at_next = n;
    return true;
}

void stream_put_back(struct stream *s)
{
    s->taken -= (uint32_t)s->clear_at_next;
    s->clear_at_next = 0;
}

void stream_drop(struct stream *s)
{
    stream_forget_taken(s);
    s->taken += (uint32_t)s->n_held;
    s->clear_at_next = s->n_held;
    stream_forget_taken(s);
}
