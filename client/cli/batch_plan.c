#include "client/cli/batch_plan.h"

#include "client/cli/batch_line.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "common/id.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_BYTES_MOST 65536u
#define READ_BYTES       65536u

_Static_assert(sizeof((struct batch_plan_line *)0)->id == ID_BYTES, "an id is an id");

/* ---- lines of a file ---- */

typedef enum err plan_line_fn(void *arg, uint64_t offset, const char *text, size_t size, bool whole,
                              struct errbuf *eb);

/* Calls `fn` for each line (its line feed left out; `whole`: it has one). Lines over the bound are
 * handed over cut to one byte more than it, so that the callee refuses them. */
static enum err plan_each_line(int fd, const char *path, plan_line_fn *fn, void *arg,
                               struct errbuf *eb)
{
    enum err err = ERR_OK;
    struct buf line;
    buf_init(&line);
    char *chunk = malloc(READ_BYTES);
    uint64_t offset = 0, begin = 0;
    if (!chunk)
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    while (err == ERR_OK) {
        ssize_t n = pread(fd, chunk, READ_BYTES, (off_t)offset);
        if (n < 0)
            err = err_set_errno(eb, errno, "%s", path);
        if (n <= 0)
            break;
        for (const char *p = chunk, *end = chunk + n; err == ERR_OK && p < end;) {
            const char *feed = memchr(p, '\n', (size_t)(end - p));
            size_t size = (size_t)((feed ? feed : end) - p);
            size_t room = BATCH_LINE_BYTES + 1 - line.size;
            buf_append(&line, p, size < room ? size : room);
            p += size;
            if (line.failed)
                err = err_set(eb, ERR_NO_MEMORY, "no memory");
            if (!feed || err != ERR_OK)
                continue;
            err = fn(arg, begin, buf_str(&line), line.size, true, eb);
            buf_clear(&line);
            p++;
            begin = offset + (uint64_t)(p - chunk);
        }
        offset += (uint64_t)n;
    }
    if (err == ERR_OK && line.size > 0)
        err = fn(arg, begin, buf_str(&line), line.size, false, eb);
    free(chunk);
    buf_fini(&line);
    return err;
}

/* ---- the state file ---- */

static const char *plan_input_name(const struct batch_plan_config *config)
{
    return batch_plan_is_standard(config->input) ? "standard input" : config->input;
}

static enum err plan_digest(int fd, const char *path, char ret_hex[SHA256_HEX_BYTES],
                            struct errbuf *eb)
{
    enum err err = ERR_OK;
    uint8_t digest[SHA256_BYTES];
    struct sha256_stream *s = sha256_new();
    char *chunk = malloc(READ_BYTES);
    for (uint64_t offset = 0; chunk;) {
        ssize_t n = pread(fd, chunk, READ_BYTES, (off_t)offset);
        if (n < 0)
            err = err_set_errno(eb, errno, "%s", path);
        if (n <= 0)
            break;
        sha256_update(s, chunk, (size_t)n);
        offset += (uint64_t)n;
    }
    if (!chunk)
        err = err_set(eb, ERR_NO_MEMORY, "no memory");
    free(chunk);
    sha256_finish(s, digest);
    hex_encode(digest, sizeof digest, ret_hex);
    return err;
}

static enum err plan_state_write(struct batch_plan *plan, const char *path,
                                 const struct batch_plan_config *config, const char *digest,
                                 struct errbuf *eb)
{
    cloister_id_new(plan->base_id);
    json_t *document = json_pack("{s:i, s:s, s:s, s:s}", "cloister_batch", 1, "id", plan->base_id,
                                 "input_sha256", digest, "flags", config->flags);
    char *text = document ? json_dumps(document, JSON_INDENT(2)) : NULL;
    json_decref(document);
    if (!text)
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    size_t size = strlen(text);
    /* In place, since the lock is on this very file: a torn state is refused at the next start,
     * before which nothing was handed over. */
    bool ok = ftruncate(plan->state, 0) == 0 &&
              pwrite(plan->state, text, size, 0) == (ssize_t)size && fsync(plan->state) == 0;
    free(text);
    return ok ? ERR_OK : err_set_errno(eb, errno, "%s", path);
}

static bool flags_have(const char *flags, const char *one, size_t size)
{
    for (const char *at = flags; at; at = strstr(at, ", ")) {
        at += strspn(at, ", ");
        if (strncmp(at, one, size) == 0 && (at[size] == ',' || !at[size]))
            return true;
    }
    return false;
}

/* Of "max-tokens 9, seed 3" the parts that `other` lacks. */
static void flags_missing(const char *flags, const char *other, struct buf *out)
{
    while (*flags) {
        const char *end = strstr(flags, ", ");
        size_t size = end ? (size_t)(end - flags) : strlen(flags);
        if (!flags_have(other, flags, size))
            buf_printf(out, "%s%.*s", out->size > 0 ? ", " : "", (int)size, flags);
        flags += end ? size + 2 : size;
    }
}

static enum err flags_differ(const char *output, const char *begun, const char *now,
                             struct errbuf *eb)
{
    struct buf was, is;
    buf_init(&was);
    buf_init(&is);
    flags_missing(begun, now, &was);
    flags_missing(now, begun, &is);
    /* The same parts in another order, or one of them more often. */
    if (was.size == 0 && is.size == 0) {
        buf_append_str(&was, begun);
        buf_append_str(&is, now);
    }
    enum err err =
        err_set(eb, ERR_CONFLICT,
                "the batch in %s was begun with other flags: %s%s%s; give those, another output or "
                "--restart",
                output, buf_str(&was),
                was.size == 0  ? "without "
                : is.size == 0 ? ", which is not given now"
                               : ", not ",
                buf_str(&is));
    buf_fini(&was);
    buf_fini(&is);
    return err;
}

static enum err plan_state_read(struct batch_plan *plan, const char *path,
                                const struct batch_plan_config *config, const char *digest,
                                struct errbuf *eb)
{
    char text[STATE_BYTES_MOST];
    struct id unused;
    ssize_t n = pread(plan->state, text, sizeof text, 0);
    if (n < 0)
        return err_set_errno(eb, errno, "%s", path);
    json_error_t error;
    json_t *root = json_loadb(text, (size_t)n, 0, &error);
    const char *id = json_string_value(json_object_get(root, "id"));
    const char *input = json_string_value(json_object_get(root, "input_sha256"));
    const char *flags = json_string_value(json_object_get(root, "flags"));
    enum err err = ERR_OK;
    if (!id || !id_parse(id, &unused) || !input || !flags)
        err = err_set(eb, ERR_CONFLICT, "%s is not the state of a batch; --restart begins anew",
                      path);
    else if (strcmp(input, digest) != 0)
        err = err_set(eb, ERR_CONFLICT,
                      "%s is not what the batch in %s was begun with; give another output or "
                      "--restart",
                      plan_input_name(config), config->output);
    else if (strcmp(flags, config->flags) != 0)
        err = flags_differ(config->output, flags, config->flags, eb);
    else
        memcpy(plan->base_id, id, sizeof plan->base_id);
    json_decref(root);
    return err;
}

/* Both are read again, at places that were seen before: a device may have no end, a pipe no places.
 * What is not there yet is made as a file. */
static enum err plan_check_file(const char *path, struct errbuf *eb)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_set(eb, ERR_CONFLICT, "%s is no regular file, which a batch needs", path);
    return ERR_OK;
}

/* What pread can read again. It has no name, so that nothing is left of it however this ends. */
static enum err plan_spool_input(struct batch_plan *plan, struct errbuf *eb)
{
    enum err err = ERR_OK;
    char *chunk = malloc(READ_BYTES);
    FILE *spool = tmpfile();
    if (!chunk || !spool) {
        err = err_set_errno(eb, errno, "a temporary file for standard input");
        goto out;
    }
    for (;;) {
        ssize_t n = read(STDIN_FILENO, chunk, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = err_set_errno(eb, errno, "standard input");
        if (n <= 0)
            break;
        if (fwrite(chunk, 1, (size_t)n, spool) != (size_t)n) {
            err = err_set_errno(eb, errno, "a temporary file for standard input");
            break;
        }
    }
    if (err == ERR_OK && fflush(spool) != 0)
        err = err_set_errno(eb, errno, "a temporary file for standard input");
    if (err == ERR_OK) {
        plan->in = fcntl(fileno(spool), F_DUPFD_CLOEXEC, 0);
        if (plan->in < 0)
            err = err_set_errno(eb, errno, "a temporary file for standard input");
    }
out:
    if (spool)
        fclose(spool);
    free(chunk);
    return err;
}

static enum err plan_open_input(struct batch_plan *plan, const struct batch_plan_config *config,
                                struct errbuf *eb)
{
    if (batch_plan_is_standard(config->input))
        return plan_spool_input(plan, eb);
    enum err err = plan_check_file(config->input, eb);
    if (err != ERR_OK)
        return err;
    plan->in = open(config->input, O_RDONLY | O_CLOEXEC);
    return plan->in < 0 ? err_set_errno(eb, errno, "%s", config->input) : ERR_OK;
}

static enum err plan_state_open(struct batch_plan *plan, const struct batch_plan_config *config,
                                struct errbuf *eb)
{
    char digest[SHA256_HEX_BYTES];
    struct stat out_stat, state_stat;
    struct buf path;
    buf_init(&path);
    buf_printf(&path, "%s.state", config->output);
    enum err err = ERR_OK;
    plan->state = open(buf_str(&path), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (plan->state < 0) {
        err = err_set_errno(eb, errno, "%s", buf_str(&path));
        goto out;
    }
    if (flock(plan->state, LOCK_EX | LOCK_NB) < 0) {
        err = err_set(eb, ERR_BUSY, "another run is writing %s", config->output);
        goto out;
    }
    plan->out = open(config->output, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (plan->out < 0 || fstat(plan->out, &out_stat) < 0 || fstat(plan->state, &state_stat) < 0) {
        err = err_set_errno(eb, errno, "%s", config->output);
        goto out;
    }
    if (config->restart && (ftruncate(plan->out, 0) < 0 || ftruncate(plan->state, 0) < 0)) {
        err = err_set_errno(eb, errno, "%s", config->output);
        goto out;
    }
    plan->resumed = !config->restart && state_stat.st_size > 0;
    if (!plan->resumed && !config->restart && out_stat.st_size > 0) {
        err = err_set(eb, ERR_CONFLICT,
                      "%s is there already and belongs to no batch; give another output or "
                      "--restart, which empties it",
                      config->output);
        unlink(buf_str(&path)); /* it was made above, empty */
        goto out;
    }
    err = plan_digest(plan->in, plan_input_name(config), digest, eb);
    if (err == ERR_OK)
        err = plan->resumed ? plan_state_read(plan, buf_str(&path), config, digest, eb)
                            : plan_state_write(plan, buf_str(&path), config, digest, eb);
out:
    buf_fini(&path);
    return err;
}

/* ---- the input ---- */

struct plan_input {
    struct batch_plan *plan;
    const struct batch_plan_config *config;
    uint32_t number;
    /* Digests of custom_ids, with the line each was first in. */
    struct plan_custom_id {
        uint8_t digest[16];
        uint32_t index;
    } * custom_ids;
    size_t n_custom_ids, custom_ids_capacity;
};

static bool plan_grow(void **items, size_t count, size_t *capacity, size_t bytes)
{
    if (count < *capacity)
        return true;
    size_t more = *capacity ? *capacity * 2 : 256;
    void *grown = realloc(*items, more * bytes);
    if (!grown)
        return false;
    *items = grown;
    *capacity = more;
    return true;
}

static bool plan_is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static void plan_line_id(struct batch_plan *plan, struct batch_plan_line *line, const char *text,
                         size_t size)
{
    uint8_t digest[4 + SHA256_BYTES];
    char id_text[CLOISTER_ID_BYTES];
    struct id id;
    for (int i = 0; i < 4; i++)
        digest[i] = (uint8_t)(line->number >> 8 * i);
    sha256(text, size, digest + 4);
    cloister_id_derive(plan->base_id, digest, sizeof digest, id_text);
    id_parse(id_text, &id);
    memcpy(line->id, id.bytes, sizeof line->id);
}

static enum err plan_mark_invalid(struct batch_plan_line *line, const char *reason,
                                  struct errbuf *eb)
{
    struct errbuf text = {0};
    err_set(&text, ERR_INVALID, "line %" PRIu32 ": %.400s", line->number, reason);
    line->state = BATCH_LINE_INVALID;
    free(line->problem);
    line->problem = strdup(text.text);
    return line->problem ? ERR_OK : err_set(eb, ERR_NO_MEMORY, "no memory");
}

static enum err plan_note_custom_id(struct plan_input *in, const char *custom_id, size_t index,
                                    struct errbuf *eb)
{
    uint8_t digest[SHA256_BYTES];
    if (!plan_grow((void **)&in->custom_ids, in->n_custom_ids, &in->custom_ids_capacity,
                   sizeof *in->custom_ids))
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    sha256(custom_id, strlen(custom_id), digest);
    struct plan_custom_id *entry = &in->custom_ids[in->n_custom_ids++];
    memcpy(entry->digest, digest, sizeof entry->digest);
    entry->index = (uint32_t)index;
    return ERR_OK;
}

static enum err plan_on_input(void *arg, uint64_t offset, const char *text, size_t size, bool whole,
                              struct errbuf *eb)
{
    (void)whole;
    struct plan_input *in = arg;
    struct batch_plan *plan = in->plan;
    in->number++;
    if (plan_is_blank(text, size))
        return ERR_OK;
    if (in->number == UINT32_MAX ||
        !plan_grow((void **)&plan->lines, plan->n_lines, &plan->capacity, sizeof *plan->lines))
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory for its lines",
                       plan_input_name(in->config));
    struct batch_plan_line *line = &plan->lines[plan->n_lines];
    *line =
        (struct batch_plan_line){.offset = offset, .size = (uint32_t)size, .number = in->number};
    plan_line_id(plan, line, text, size);
    struct batch_line parsed;
    struct errbuf reason = {0};
    enum err err = batch_line_parse(text, size, in->config->defaults, &parsed, &reason);
    if (err == ERR_NO_MEMORY)
        err_set(eb, err, "%s", reason.text);
    else if (err != ERR_OK)
        err = plan_mark_invalid(line, reason.text, eb);
    else
        err = plan_note_custom_id(in, parsed.custom_id, plan->n_lines, eb);
    batch_line_fini(&parsed);
    plan->n_lines++;
    return err;
}

static int plan_compare_custom_ids(const void *a, const void *b)
{
    const struct plan_custom_id *x = a, *y = b;
    int order = memcmp(x->digest, y->digest, sizeof x->digest);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* A custom_id names one answer: the second line with it is an error. */
static enum err plan_refuse_duplicates(struct plan_input *in, struct errbuf *eb)
{
    struct plan_custom_id *ids = in->custom_ids;
    if (in->n_custom_ids == 0)
        return ERR_OK;
    qsort(ids, in->n_custom_ids, sizeof *ids, plan_compare_custom_ids);
    size_t first = 0;
    for (size_t i = 1; i < in->n_custom_ids; i++) {
        if (memcmp(ids[i].digest, ids[first].digest, sizeof ids[i].digest) != 0) {
            first = i;
            continue;
        }
        char reason[96];
        snprintf(reason, sizeof reason, "the same custom_id is in line %" PRIu32 " already",
                 in->plan->lines[ids[first].index].number);
        enum err err = plan_mark_invalid(&in->plan->lines[ids[i].index], reason, eb);
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

static enum err plan_read_input(struct batch_plan *plan, const struct batch_plan_config *config,
                                struct errbuf *eb)
{
    struct plan_input in = {.plan = plan, .config = config};
    enum err err = plan_each_line(plan->in, plan_input_name(config), plan_on_input, &in, eb);
    if (err == ERR_OK)
        err = plan_refuse_duplicates(&in, eb);
    free(in.custom_ids);
    return err;
}

/* ---- the output that is there ---- */

struct plan_output {
    const struct batch_plan_config *config;
    uint8_t (*ids)[ID_BYTES];
    size_t n_ids, n_failed, capacity;
    uint64_t whole_bytes; /* up to the last line feed */
    uint64_t number;
};

static enum err plan_on_output(void *arg, uint64_t offset, const char *text, size_t size,
                               bool whole, struct errbuf *eb)
{
    struct plan_output *out = arg;
    char id_text[CLOISTER_ID_BYTES];
    struct id id;
    out->number++;
    if (!whole)
        return ERR_OK; /* torn by an interruption: cut off below */
    bool failed = false;
    if (!batch_line_read(text, size, id_text, &failed) || !id_parse(id_text, &id))
        return err_set(eb, ERR_CONFLICT,
                       "%s:%" PRIu64 ": not a line of this program; the file is left alone",
                       out->config->output, out->number);
    if (!plan_grow((void **)&out->ids, out->n_ids, &out->capacity, sizeof *out->ids))
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    memcpy(out->ids[out->n_ids++], id.bytes, ID_BYTES);
    out->n_failed += failed;
    out->whole_bytes = offset + size + 1;
    return ERR_OK;
}

static int plan_compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, ID_BYTES);
}

static enum err plan_read_output(struct batch_plan *plan, const struct batch_plan_config *config,
                                 struct errbuf *eb)
{
    struct plan_output out = {.config = config};
    enum err err = plan_each_line(plan->out, config->output, plan_on_output, &out, eb);
    if (err != ERR_OK)
        goto out;
    if (ftruncate(plan->out, (off_t)out.whole_bytes) < 0) {
        err = err_set_errno(eb, errno, "%s", config->output);
        goto out;
    }
    plan->n_failed = out.n_failed;
    if (out.n_ids == 0)
        goto out;
    qsort(out.ids, out.n_ids, sizeof *out.ids, plan_compare_ids);
    for (size_t i = 0; i < plan->n_lines; i++) {
        struct batch_plan_line *line = &plan->lines[i];
        if (!bsearch(line->id, out.ids, out.n_ids, sizeof *out.ids, plan_compare_ids))
            continue;
        line->state = BATCH_LINE_DONE;
        plan->n_done++;
    }
out:
    free(out.ids);
    return err;
}

/* ---- the plan ---- */

bool batch_plan_is_standard(const char *path)
{
    return strcmp(path, "-") == 0;
}

enum err batch_plan_open(struct batch_plan *plan, const struct batch_plan_config *config,
                         struct errbuf *eb)
{
    bool to_file = !batch_plan_is_standard(config->output);
    struct stat in, out;
    *plan = (struct batch_plan){.in = -1, .out = -1, .state = -1};
    enum err err = to_file ? plan_check_file(config->output, eb) : ERR_OK;
    if (err == ERR_OK)
        err = plan_open_input(plan, config, eb);
    /* Before --restart empties it. */
    if (err == ERR_OK && to_file && fstat(plan->in, &in) == 0 && stat(config->output, &out) == 0 &&
        in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        err = err_set(eb, ERR_CONFLICT, "%s is input and output", config->output);
    if (err == ERR_OK && to_file) {
        err = plan_state_open(plan, config, eb);
    } else if (err == ERR_OK) {
        cloister_id_new(plan->base_id);
        plan->out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
        if (plan->out < 0)
            err = err_set_errno(eb, errno, "standard output");
    }
    if (err == ERR_OK)
        err = plan_read_input(plan, config, eb);
    if (err == ERR_OK && to_file)
        err = plan_read_output(plan, config, eb);
    if (err != ERR_OK)
        batch_plan_close(plan);
    return err;
}

void batch_plan_close(struct batch_plan *plan)
{
    for (size_t i = 0; i < plan->n_lines; i++)
        free(plan->lines[i].problem);
    free(plan->lines);
    if (plan->in >= 0)
        close(plan->in);
    if (plan->out >= 0)
        close(plan->out);
    if (plan->state >= 0)
        close(plan->state);
    *plan = (struct batch_plan){.in = -1, .out = -1, .state = -1};
}

enum err batch_plan_read(const struct batch_plan *plan, const struct batch_plan_line *line,
                         char **ret_text, struct errbuf *eb)
{
    char *text = malloc(line->size + 1u);
    if (!text)
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    for (size_t have = 0; have < line->size;) {
        ssize_t n = pread(plan->in, text + have, line->size - have, (off_t)(line->offset + have));
        if (n <= 0) {
            free(text);
            return n < 0 ? err_set_errno(eb, errno, "the input")
                         : err_set(eb, ERR_IO, "the input became shorter while it was read");
        }
        have += (size_t)n;
    }
    text[line->size] = 0;
    *ret_text = text;
    return ERR_OK;
}

void batch_plan_id(const struct batch_plan_line *line, char ret_id[CLOISTER_ID_BYTES])
{
    struct id id;
    memcpy(id.bytes, line->id, sizeof id.bytes);
    id_format(&id, ret_id);
}

enum err batch_plan_append(struct batch_plan *plan, const void *bytes, size_t size,
                           struct errbuf *eb)
{
    struct stat before;
    bool to_file = plan->state >= 0;
    if (to_file && fstat(plan->out, &before) < 0)
        return err_set_errno(eb, errno, "the output");
    for (size_t done = 0; done < size;) {
        ssize_t n = write(plan->out, (const char *)bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            enum err err = err_set_errno(eb, errno, to_file ? "the output" : "standard output");
            /* A full disk tears the line; the next run would cut it off too. */
            if (to_file)
                (void)!ftruncate(plan->out, before.st_size);
            return err;
        }
        done += (size_t)n;
    }
    return ERR_OK;
}
