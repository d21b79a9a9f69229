/* Logprobs on their way from the draw to the event, with the bytes of their tokens. */
#include "worker/engine/engine_internal.h"

#include <stdlib.h>
#include <string.h>

static bool logprob_list_reserve(struct logprob_list *list, size_t more)
{
    size_t capacity = list->capacity == 0 ? 32 : list->capacity;

    while (capacity < list->count + more)
        capacity *= 2;
    if (capacity == list->capacity)
        return true;
    struct engine_logprob *at = realloc(list->at, capacity * sizeof *at);
    if (at == NULL)
        return false;
    list->at = at;
    list->capacity = capacity;
    return true;
}

static void logprob_add_one(struct logprob_list *list, const struct tokenizer *t,
                            const struct sampling_logprob *of, uint32_t n_top)
{
    size_t before = list->bytes.size;

    tokenizer_decode(t, of->id, true, false, &list->bytes);
    list->at[list->count++] = (struct engine_logprob){
        .of = *of, .n_top = n_top, .n_bytes = (uint32_t)(list->bytes.size - before)};
}

bool logprob_list_add(struct logprob_list *list, const struct tokenizer *t,
                      const struct sampling_logprobs *logprobs)
{
    size_t count = list->count, bytes = list->bytes.size;

    if (!logprob_list_reserve(list, 1 + (size_t)logprobs->n_top))
        return false;
    logprob_add_one(list, t, &logprobs->drawn, logprobs->n_top);
    for (uint32_t i = 0; i < logprobs->n_top; i++)
        logprob_add_one(list, t, &logprobs->top[i], 0);
    if (!list->bytes.failed)
        return true;
    list->bytes.failed = false;
    list->bytes.size = bytes;
    list->count = count;
    return false;
}

bool logprob_list_move(struct logprob_list *from, struct logprob_list *to, size_t n_tokens)
{
    size_t n = 0, n_bytes = 0;

    for (size_t token = 0; token < n_tokens; token++)
        for (size_t end = n + 1 + from->at[n].n_top; n < end; n++)
            n_bytes += from->at[n].n_bytes;
    if (n == 0)
        return true;
    if (!logprob_list_reserve(to, n))
        return false;
    if (!buf_reserve(&to->bytes, n_bytes)) {
        to->bytes.failed = false; /* what waits in it is good */
        return false;
    }
    memcpy(to->at + to->count, from->at, n * sizeof *to->at);
    to->count += n;
    from->count -= n;
    memmove(from->at, from->at + n, from->count * sizeof *from->at);
    if (n_bytes > 0) {
        buf_append(&to->bytes, from->bytes.data, n_bytes);
        from->bytes.size -= n_bytes;
        memmove(from->bytes.data, from->bytes.data + n_bytes, from->bytes.size);
    }
    return true;
}

void logprob_list_fini(struct logprob_list *list)
{
    free(list->at);
    buf_fini(&list->bytes);
    *list = (struct logprob_list){0};
}
