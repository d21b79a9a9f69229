/*
 * buf.h - a growing byte buffer. A refused allocation sets `failed` and later appends do nothing,
 * so that a caller checks once at the end. Ownership: buf_fini frees. Thread: one owner.
 */
#ifndef CLOISTER_COMMON_BUF_H
#define CLOISTER_COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* always NUL-terminated behind `size` once anything was appended */
    size_t size;
    size_t capacity;
    bool failed;
};

void buf_init(struct buf *b);
void buf_fini(struct buf *b);
void buf_clear(struct buf *b); /* size 0, keeps the memory, clears `failed` */

/* Room for `extra` more bytes; false (and `failed`) when memory is refused. */
bool buf_reserve(struct buf *b, size_t extra);
void buf_append(struct buf *b, const void *bytes, size_t size);
void buf_append_str(struct buf *b, const char *text);
void buf_append_byte(struct buf *b, uint8_t byte);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *buf_str(const struct buf *b); /* "" where empty */

#endif
