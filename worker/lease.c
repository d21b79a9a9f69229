#include "worker/lease.h"

#include "common/check.h"
#include "common/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lease_table_init(struct lease_table *t)
{
    *t = (struct lease_table){.next_engine_id = 1};
}

static void chunk_fini(struct lease_chunk *c)
{
    free(c->ids);
    free(c->text_sizes);
    free(c->text);
    free(c->logprobs);
}

static void lease_free(struct lease *l)
{
    for (size_t i = 0; i < l->n_chunks; i++)
        chunk_fini(&l->chunks[i]);
    free(l->chunks);
    arena_fini(&l->content);
    free(l);
}

void lease_table_fini(struct lease_table *t)
{
    for (size_t i = 0; i < t->count; i++)
        lease_free(t->leases[i]);
    free(t->leases);
    *t = (struct lease_table){0};
}

struct lease *lease_find(const struct lease_table *t, const struct id *job_id)
{
    for (size_t i = 0; i < t->count; i++) {
        if (id_compare(&t->leases[i]->job_id, job_id) == 0)
            return t->leases[i];
    }
    return NULL;
}

struct lease *lease_find_engine(const struct lease_table *t, uint64_t engine_id)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->leases[i]->engine_id == engine_id)
            return t->leases[i];
    }
    return NULL;
}

/* The command's pointers lie in the frame's arena, which ends with the frame: a WAITING lease
 * keeps the packed job and reads it again into an arena of its own. */
static enum err run_copy(struct lease *l, const struct wire_command_run *run, struct errbuf *eb)
{
    struct buf packed;
    buf_init(&packed);
    enum err e = wire_job_encode(&run->job, &packed, eb);
    if (e != ERR_OK)
        goto out;
    l->run = *run;
    uint8_t *bytes = arena_alloc(&l->content, packed.size);
    int32_t *ids = arena_alloc_array(&l->content, run->n_resume_ids, sizeof *ids);
    if (bytes == NULL || ids == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a job of %zu bytes", packed.size);
        goto out;
    }
    if (packed.size > 0)
        memcpy(bytes, packed.data, packed.size);
    if (run->n_resume_ids > 0)
        memcpy(ids, run->resume_ids, run->n_resume_ids * sizeof *ids);
    l->run.resume_ids = ids;
    l->run.tenant = arena_copy(&l->content, run->tenant, strlen(run->tenant));
    if (l->run.tenant == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a job");
        goto out;
    }
    e = wire_job_decode(bytes, packed.size, &l->content, &l->run.job, eb);
out:
    buf_fini(&packed);
    return e;
}

enum err lease_add(struct lease_table *t, const struct wire_command_run *run, uint32_t model_id,
                   struct lease **ret_lease, struct errbuf *eb)
{
    CHECK(lease_find(t, &run->job_id) == NULL);
    if (t->count == LIMIT_LEASES_PER_WORKER)
        return err_set(eb, ERR_BUSY, "this worker holds %u leases already",
                       LIMIT_LEASES_PER_WORKER);
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? 16 : t->capacity * 2;
        struct lease **leases = realloc(t->leases, capacity * sizeof *leases);
        if (leases == NULL)
            return err_set(eb, ERR_NO_MEMORY, "no memory for a lease");
        t->leases = leases;
        t->capacity = capacity;
    }
    struct lease *l = calloc(1, sizeof *l);
    if (l == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a lease");
    arena_init(&l->content, LIMIT_DECODE_BYTES);
    enum err e = run_copy(l, run, eb);
    if (e != ERR_OK) {
        lease_free(l);
        return e;
    }
    l->job_id = run->job_id;
    l->epoch = run->epoch;
    l->engine_id = t->next_engine_id++;
    l->state = LEASE_STATE_WAITING;
    l->model_id = model_id;
    l->tokens = (uint32_t)run->n_resume_ids;
    l->acked = l->tokens;
    t->leases[t->count++] = l;
    *ret_lease = l;
    return ERR_OK;
}

void lease_remove(struct lease_table *t, struct lease *lease)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->leases[i] != lease)
            continue;
        /* Order is kept: frames are filled in order of arrival. */
        memmove(&t->leases[i], &t->leases[i + 1], (t->count - i - 1) * sizeof t->leases[0]);
        t->count--;
        lease_free(lease);
        return;
    }
    CHECK(false && "lease is in its table");
}

void lease_release_content(struct lease *lease)
{
    arena_fini(&lease->content);
    memset(&lease->run, 0, sizeof lease->run);
}

/* An id and the size of its text take at most five bytes of a frame each, beside the text. */
#define LEASE_ID_BYTES 10u
/* And its logprobs three, beside their own. */
#define LEASE_LOGPROBS_BYTES 3u

static size_t logprobs_frame_bytes(const struct lease_output *o, size_t at)
{
    return o->logprobs == NULL ? 0 : o->logprobs[at].size + LEASE_LOGPROBS_BYTES;
}

/* How many of these tokens make the next chunk, and the text they add. A chunk goes into one frame
 * whole, but an event of the engine can be longer than a frame: it holds all that was made since
 * the last was taken. */
static size_t chunk_measure(const struct lease_output *o, size_t *ret_text)
{
    size_t n = 0, text = 0, bytes = 0;
    while (n < o->n_ids && n < LIMIT_TOKENS_PER_FRAME) {
        bytes += LEASE_ID_BYTES + (size_t)o->text_sizes[n] + logprobs_frame_bytes(o, n);
        if (n > 0 && bytes > LEASE_CHUNK_BYTES_MAX)
            break;
        text += (size_t)o->text_sizes[n];
        n++;
    }
    *ret_text = text;
    return n;
}

/* One block of memory: the list, and what it points to. */
static struct wire_bytes *logprobs_copy(const struct wire_bytes *from, size_t n, uint32_t *ret_size)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += from[i].size;
    struct wire_bytes *to = malloc(n * sizeof *to + size + 1);
    if (to == NULL)
        return NULL;
    uint8_t *bytes = (uint8_t *)(to + n);
    for (size_t i = 0; i < n; i++) {
        to[i] = (struct wire_bytes){.data = bytes, .size = from[i].size};
        if (from[i].size > 0)
            memcpy(bytes, from[i].data, from[i].size);
        bytes += from[i].size;
    }
    *ret_size = (uint32_t)size;
    return to;
}

/* The first n_ids tokens and text_size bytes of the output as a chunk. */
static enum err chunk_add(struct lease *lease, const struct lease_output *o, size_t n_ids,
                          size_t text_size, struct errbuf *eb)
{
    if (lease->n_chunks == lease->cap_chunks) {
        size_t capacity = lease->cap_chunks == 0 ? 8 : lease->cap_chunks * 2;
        struct lease_chunk *chunks = realloc(lease->chunks, capacity * sizeof *chunks);
        if (chunks == NULL)
            return err_set(eb, ERR_NO_MEMORY, "no memory for output");
        lease->chunks = chunks;
        lease->cap_chunks = capacity;
    }
    struct lease_chunk c = {
        .first = lease->tokens, .n_ids = (uint32_t)n_ids, .text_size = (uint32_t)text_size};
    bool failed = false;
    c.ids = malloc(n_ids * sizeof *c.ids + 1);
    c.text_sizes = malloc(n_ids * sizeof *c.text_sizes + 1);
    c.text = malloc(text_size + 1);
    if (o->logprobs != NULL) {
        c.logprobs = logprobs_copy(o->logprobs, n_ids, &c.logprobs_size);
        failed = c.logprobs == NULL;
    }
    if (failed || c.ids == NULL || c.text_sizes == NULL || c.text == NULL) {
        chunk_fini(&c);
        return err_set(eb, ERR_NO_MEMORY, "no memory for output");
    }
    if (n_ids > 0) {
        memcpy(c.ids, o->ids, n_ids * sizeof *c.ids);
        memcpy(c.text_sizes, o->text_sizes, n_ids * sizeof *c.text_sizes);
    }
    if (text_size > 0)
        memcpy(c.text, o->text, text_size);
    lease->chunks[lease->n_chunks++] = c;
    lease->tokens += (uint32_t)n_ids;
    lease->changed = true;
    return ERR_OK;
}

static bool text_sizes_fit(const int32_t *text_sizes, size_t n_ids, size_t text_size)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (text_sizes[i] < 0 || (size_t)text_sizes[i] > text_size)
            return false;
        text_size -= (size_t)text_sizes[i];
    }
    return true;
}

enum err lease_append(struct lease *lease, const struct lease_output *output, struct errbuf *eb)
{
    struct lease_output o = *output; /* what is left of it */

    if (o.first != lease->tokens)
        return err_set(eb, ERR_INTERNAL, "engine went on at token %u where %u was due", o.first,
                       lease->tokens);
    if (!text_sizes_fit(o.text_sizes, o.n_ids, o.text_size))
        return err_set(eb, ERR_INTERNAL, "%zu tokens add more than their %zu bytes of text",
                       o.n_ids, o.text_size);
    while (o.n_ids > 0 || o.text_size > 0) {
        size_t take_text;
        size_t take = chunk_measure(&o, &take_text);
        if (take == o.n_ids) /* text behind the last token is the last chunk's */
            take_text = o.text_size;
        enum err e = chunk_add(lease, &o, take, take_text, eb);
        if (e != ERR_OK)
            return e;
        o.n_ids -= take;
        o.text_size -= take_text;
        if (take > 0) {
            o.ids += take;
            o.text_sizes += take;
            o.logprobs = o.logprobs == NULL ? NULL : o.logprobs + take;
        }
        if (take_text > 0)
            o.text = (const uint8_t *)o.text + take_text;
    }
    return ERR_OK;
}

void lease_end(struct lease *lease, enum wire_finish finish, enum err error, const char *text)
{
    lease->state = LEASE_STATE_ENDED;
    lease->finish = finish;
    lease->error = error;
    (void)snprintf(lease->error_text, sizeof lease->error_text, "%s", text != NULL ? text : "");
    lease->changed = true;
}

static size_t chunk_frame_bytes(const struct lease_chunk *c)
{
    size_t logprobs =
        c->logprobs == NULL ? 0 : c->logprobs_size + (size_t)c->n_ids * LEASE_LOGPROBS_BYTES;
    return c->text_size + (size_t)c->n_ids * LEASE_ID_BYTES + logprobs;
}

/* What goes into one frame. */
struct chunks_taken {
    size_t n_chunks;
    size_t bytes;
    uint32_t n_ids;
    size_t text_size;
    bool logprobs;
};

static struct chunks_taken chunks_take(const struct lease *l, size_t bytes_max)
{
    struct chunks_taken t = {0};
    for (; t.n_chunks < l->n_chunks; t.n_chunks++) {
        const struct lease_chunk *c = &l->chunks[t.n_chunks];
        size_t bytes = t.bytes + chunk_frame_bytes(c);
        if (t.n_ids + c->n_ids > LIMIT_TOKENS_PER_FRAME || bytes > bytes_max)
            break;
        t.bytes = bytes;
        t.n_ids += c->n_ids;
        t.text_size += c->text_size;
        t.logprobs = t.logprobs || c->logprobs != NULL;
    }
    return t;
}

static bool progress_fill(struct lease *l, size_t bytes_max, struct arena *arena,
                          struct wire_lease_progress *p, size_t *ret_bytes)
{
    struct chunks_taken t = chunks_take(l, bytes_max);
    int32_t *ids = arena_alloc_array(arena, t.n_ids, sizeof *ids);
    int32_t *text_sizes = arena_alloc_array(arena, t.n_ids, sizeof *text_sizes);
    uint8_t *text = arena_alloc(arena, t.text_size);
    size_t n_logprobs = t.logprobs ? t.n_ids : 0;
    struct wire_bytes *logprobs = arena_alloc_array(arena, n_logprobs, sizeof *logprobs);
    if (ids == NULL || text_sizes == NULL || text == NULL || logprobs == NULL)
        return false;
    size_t at_id = 0, at_text = 0;
    for (size_t i = 0; i < t.n_chunks; i++) {
        const struct lease_chunk *c = &l->chunks[i];
        memcpy(ids + at_id, c->ids, c->n_ids * sizeof *ids);
        memcpy(text_sizes + at_id, c->text_sizes, c->n_ids * sizeof *text_sizes);
        memcpy(text + at_text, c->text, c->text_size);
        if (c->logprobs != NULL)
            memcpy(logprobs + at_id, c->logprobs, c->n_ids * sizeof *logprobs);
        at_id += c->n_ids;
        at_text += c->text_size;
    }
    *p = (struct wire_lease_progress){
        .job_id = l->job_id,
        .epoch = l->epoch,
        .first = t.n_chunks > 0 ? l->chunks[0].first : l->tokens,
        .ids = ids,
        .n_ids = t.n_ids,
        .text = {.data = text, .size = t.text_size},
        .usage = l->usage,
        .text_sizes = text_sizes,
        .n_text_sizes = t.n_ids,
        .logprobs = logprobs,
        .n_logprobs = n_logprobs,
    };
    p->error.text = "";
    bool whole = t.n_chunks == l->n_chunks;
    if (whole && l->state == LEASE_STATE_ENDED) {
        p->finish = l->finish;
        if (l->error != ERR_OK) {
            p->error.code = (uint32_t)l->error;
            p->error.text = arena_copy(arena, l->error_text, strlen(l->error_text));
            p->error.retryable = err_retryable(l->error);
            if (p->error.text == NULL)
                return false;
        }
        l->end_sent = true;
    }
    l->changed = !whole;
    *ret_bytes = t.bytes;
    return true;
}

enum err lease_report_fill(struct lease_table *t, bool all, size_t bytes_max, struct arena *arena,
                           struct wire_report *ret_report)
{
    size_t room = t->count < LIMIT_PROGRESS_PER_FRAME ? t->count : LIMIT_PROGRESS_PER_FRAME;
    struct wire_lease_progress *progress = arena_alloc_array(arena, room, sizeof *progress);
    size_t n = 0;

    if (progress == NULL)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < t->count && n < room; i++) {
        struct lease *l = t->leases[i];
        size_t bytes;
        if (!l->changed && !all)
            continue;
        if (!progress_fill(l, bytes_max, arena, &progress[n], &bytes))
            return ERR_NO_MEMORY;
        bytes_max -= bytes;
        n++;
    }
    ret_report->leases = progress;
    ret_report->n_leases = n;
    return ERR_OK;
}

void lease_report_failed(struct lease_table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct lease *l = t->leases[i];
        l->end_sent = false;
        if (l->n_chunks > 0 || l->state == LEASE_STATE_ENDED)
            l->changed = true;
    }
}

bool lease_acknowledge(struct lease *lease, const struct wire_lease_ack *ack, bool *ret_fenced)
{
    *ret_fenced = false;
    if (ack->epoch != lease->epoch)
        return false; /* of an earlier lease of the same job */
    if (ack->fenced) {
        *ret_fenced = true;
        return true;
    }
    size_t done = 0;
    while (done < lease->n_chunks &&
           lease->chunks[done].first + lease->chunks[done].n_ids <= ack->next) {
        chunk_fini(&lease->chunks[done]);
        done++;
    }
    if (done > 0) /* there may be no array yet */
        memmove(lease->chunks, lease->chunks + done,
                (lease->n_chunks - done) * sizeof *lease->chunks);
    lease->n_chunks -= done;
    if (ack->next > lease->acked && ack->next <= lease->tokens)
        lease->acked = ack->next;
    if (lease->n_chunks > 0)
        lease->changed = true;
    bool over = lease->end_sent && lease->n_chunks == 0;
    lease->end_sent = false;
    return over;
}

bool lease_any_changed(const struct lease_table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->leases[i]->changed)
            return true;
    }
    return false;
}
