/*
 * effects.c - what a step asks for, in the order in which it asked: the list that the loop
 * carries out.
 */
#include "coordinator/core/state.h"

#include <stdarg.h>
#include <stdio.h>

/* vsnprintf that never ends in the middle of a character: texts travel as UTF-8. */
static void format_clipped(char *text, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(text, size, fmt, ap);
    if (n < 0 || (size_t)n < size)
        return;
    size_t at = size - 1;
    while (at > 0 && ((unsigned char)text[at - 1] & 0xc0) == 0x80)
        at--;
    if (at > 0 && (unsigned char)text[at - 1] >= 0x80)
        at--;
    text[at] = '\0';
}

void core_effects_init(struct core_effects *effects, struct arena *arena)
{
    *effects = (struct core_effects){.arena = arena};
}

void *effect_alloc(struct core_effects *fx, size_t count, size_t size)
{
    void *p = arena_alloc_array(fx->arena, count, size);
    CHECK(p != NULL);
    return p;
}

struct core_effect *effect_add(struct core_effects *fx, enum core_effect_kind kind)
{
    struct core_effect *e = effect_alloc(fx, 1, sizeof *e);
    e->kind = kind;
    if (fx->last != NULL)
        fx->last->next = e;
    else
        fx->first = e;
    fx->last = e;
    if (kind == CORE_EFFECT_REPLY)
        fx->n_replies++;
    else
        fx->n_persist++;
    return e;
}

const char *effect_text(struct core_effects *fx, const char *text)
{
    char *copy = arena_copy(fx->arena, text, strlen(text));
    CHECK(copy != NULL);
    return copy;
}

const char *effect_printf(struct core_effects *fx, const char *fmt, ...)
{
    char text[LIMIT_ERROR_TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    format_clipped(text, sizeof text, fmt, ap);
    va_end(ap);
    return effect_text(fx, text);
}

struct core_effect *reply_add(struct core_effects *fx, uint64_t tag, uint64_t session,
                              const struct id *request_id, int kind)
{
    struct core_effect *e = effect_add(fx, CORE_EFFECT_REPLY);
    e->reply.tag = tag;
    e->reply.fill = CORE_FILL_NONE;
    e->reply.reply.session = session;
    e->reply.reply.request_id = *request_id;
    e->reply.reply.kind = kind;
    return e;
}

struct core_effect *reply_to(struct core_effects *fx, const struct core_event *event)
{
    const struct wire_request *r = event->request;
    return reply_add(fx, event->tag, r->session, &r->request_id, (int)r->kind);
}

void reply_error(struct core_effects *fx, const struct core_event *event, enum err code,
                 uint64_t retry_after_ms, const char *fmt, ...)
{
    char text[LIMIT_ERROR_TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    format_clipped(text, sizeof text, fmt, ap);
    va_end(ap);
    struct core_effect *e = reply_to(fx, event);
    e->reply.reply.kind = WIRE_REPLY_ERROR;
    e->reply.reply.error = (struct wire_error){.code = (uint32_t)code,
                                               .text = effect_text(fx, text),
                                               .retryable = err_retryable(code),
                                               .retry_after_ms = retry_after_ms};
}
