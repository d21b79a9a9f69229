#include "worker/catalogue.h"

#include "common/buf.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/shard_cut.h"
#include "worker/model/chat.h"
#include "worker/model/file_type.h"
#include "worker/model/gguf.h"
#include "worker/model/hparams.h"
#include "worker/model/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- digests ---- */

/* "<folder>/digest-<of the path>": one line, the file's identity and its digest. */
static void digest_cache_path(const char *folder, const char *path, struct buf *out)
{
    uint8_t name[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    sha256(path, strlen(path), name);
    hex_encode(name, sizeof name, hex);
    buf_printf(out, "%s/digest-%.32s", folder, hex);
}

static bool digest_cache_read(const char *cache, const uint8_t identity[GGUF_IDENTITY_BYTES],
                              uint8_t ret_digest[SHA256_BYTES])
{
    char line[4 * SHA256_HEX_BYTES] = "", key[SHA256_HEX_BYTES];
    FILE *f = fopen(cache, "re");
    if (f == NULL)
        return false;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    hex_encode(identity, GGUF_IDENTITY_BYTES, key);
    size_t n = strlen(key);
    if (got == NULL || strncmp(line, key, n) != 0 || line[n] != ' ')
        return false;
    line[n + strcspn(line + n, "\n")] = '\0';
    return hex_decode(line + n + 1, ret_digest, SHA256_BYTES);
}

static void digest_cache_write(const char *cache, const uint8_t identity[GGUF_IDENTITY_BYTES],
                               const uint8_t digest[SHA256_BYTES])
{
    char key[SHA256_HEX_BYTES], hex[SHA256_HEX_BYTES];
    FILE *f = fopen(cache, "we");
    if (f == NULL) {
        log_warn("cannot remember a model's digest in %s: %s", cache, strerror(errno));
        return;
    }
    hex_encode(identity, GGUF_IDENTITY_BYTES, key);
    hex_encode(digest, SHA256_BYTES, hex);
    fprintf(f, "%s %s\n", key, hex);
    if (fclose(f) != 0)
        unlink(cache);
}

/* The digest of the file that was described under `identity`. */
static enum err file_digest(const char *path, const uint8_t identity[GGUF_IDENTITY_BYTES],
                            uint64_t bytes, const struct catalogue_digests *digests,
                            uint8_t ret_digest[SHA256_BYTES], struct errbuf *eb)
{
    uint8_t after[GGUF_IDENTITY_BYTES];
    struct gguf *g = NULL;
    struct buf cache;
    enum err e = ERR_OK;

    buf_init(&cache);
    digest_cache_path(digests->folder, path, &cache);
    if (digest_cache_read(buf_str(&cache), identity, ret_digest))
        goto out;
    log_info("reading %s (%.1f GB) for its digest", path, (double)bytes / 1e9);
    e = model_file_digest(path, ret_digest, eb);
    if (e == ERR_OK)
        e = gguf_open_file(&g, path, true, eb);
    if (e != ERR_OK)
        goto out;
    gguf_identity(g, after);
    gguf_close(g);
    if (memcmp(after, identity, sizeof after) != 0)
        e = err_set(eb, ERR_CONFLICT, "%s: was replaced or written to while it was read", path);
    else if (!digests->read_only)
        digest_cache_write(buf_str(&cache), identity, ret_digest);
out:
    buf_fini(&cache);
    return e;
}

/* ---- models ---- */

static uint64_t parameter_count(const struct gguf *g)
{
    uint64_t n = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        n += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
    return n;
}

static enum err model_describe(struct catalogue_model *m, struct errbuf *eb)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct chat_template *chat = NULL;
    struct gguf_string architecture;
    struct prompt_bound bound;
    struct errbuf why = {{0}};

    enum err e = gguf_open_file(&g, m->path, true, eb);
    if (e != ERR_OK)
        goto out;
    e = gguf_get_string(g, "general.architecture", &architecture, eb);
    if (e != ERR_OK)
        goto out;
    e = tokenizer_open(&t, g, eb);
    if (e != ERR_OK)
        goto out;
    tokenizer_digest(t, m->offer.tokenizer_digest);
    /* Without a known template the model still serves raw text; only chat jobs are refused. */
    if (chat_template_open(&chat, g, t, &why) == ERR_OK)
        m->chat_template = strdup(chat_template_name(chat));
    else
        log_warn("model %s serves raw text only: %s", m->name, why.text);
    e = chat_prompt_bound(chat, t, &bound, eb);
    if (e != ERR_OK)
        goto out;
    m->offer.prompt_tokens_per_job = bound.per_job;
    m->offer.prompt_tokens_per_message = bound.per_message;
    m->offer.prompt_tokens_per_kib = bound.per_kib;
    m->architecture = strndup(architecture.bytes, architecture.size);
    m->quantization = strdup(model_file_type_name(g));
    m->offer.parameters = parameter_count(g);
    m->offer.file_bytes = gguf_file_size(g);
    gguf_identity(g, m->config.identity);
    if (m->chat_template == NULL)
        m->chat_template = strdup("");
    if (m->architecture == NULL || m->quantization == NULL || m->chat_template == NULL)
        e = err_set(eb, ERR_NO_MEMORY, "no memory for the model list");
out:
    chat_template_close(chat);
    tokenizer_close(t);
    gguf_close(g);
    return e;
}

/* A model that cannot be described in a few lines is offered without: it is served whole. */
static enum err model_shape(struct catalogue_model *m, const struct engine_config *engine,
                            struct errbuf *eb)
{
    struct shard_shape shape;
    struct buf packed;
    struct errbuf why = {{0}};
    enum err e = engine_shape_file(engine, &m->config, &shape, &m->offer.room, eb);

    if (e != ERR_OK)
        return e;
    buf_init(&packed);
    if (shard_shape_pack(&shape, LIMIT_SHAPE_BYTES, &packed, &why) != ERR_OK) {
        log_warn("model %s cannot be cut for several workers: %s", m->name, why.text);
    } else if (packed.failed || (m->shape = malloc(packed.size)) == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for the model list");
    } else {
        memcpy(m->shape, packed.data, packed.size);
        m->offer.shape = (struct wire_bytes){m->shape, packed.size};
    }
    buf_fini(&packed);
    shard_shape_fini(&shape);
    return e;
}

static enum err model_open(struct catalogue_model *m, const struct catalogue_source *source,
                           const struct engine_config *engine,
                           const struct catalogue_digests *digests, struct errbuf *eb)
{
    struct engine_estimate estimate;

    m->name = strdup(source->name);
    m->path = strdup(source->path);
    if (m->name == NULL || m->path == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the model list");
    m->config = (struct engine_model_config){.path = m->path,
                                             .context_tokens = source->context_tokens,
                                             .slots = source->slots,
                                             .kv_type = source->kv_type};
    enum err e = model_describe(m, eb);
    if (e == ERR_OK)
        e = engine_estimate_file(engine, &m->config, &estimate, eb);
    if (e == ERR_OK)
        e = model_shape(m, engine, eb);
    if (e == ERR_OK)
        e = file_digest(m->path, m->config.identity, m->offer.file_bytes, digests,
                        m->offer.weights_digest, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "model %s", source->name);
    m->config.is_bound = true;
    memcpy(m->config.digest, m->offer.weights_digest, sizeof m->config.digest);
    m->offer.name = m->name;
    m->offer.architecture = m->architecture;
    m->offer.quantization = m->quantization;
    m->offer.chat_template = m->chat_template;
    m->offer.context_tokens = estimate.context_tokens;
    m->offer.weights_bytes = estimate.weights_bytes;
    m->offer.kv_bytes = estimate.kv_bytes;
    m->offer.scratch_bytes = estimate.scratch_bytes;
    m->offer.gang_settings = "";
    m->kv_pages = estimate.kv_pages;
    m->state = WIRE_MODEL_STATE_AVAILABLE;
    return ERR_OK;
}

enum err catalogue_open(struct catalogue *ret_catalogue, const struct catalogue_source *sources,
                        size_t n_sources, const struct engine_config *engine,
                        const struct catalogue_digests *digests, struct errbuf *eb)
{
    struct catalogue c = {0};
    enum err e = ERR_OK;

    if (n_sources > LIMIT_MODELS_PER_WORKER)
        return err_set(eb, ERR_TOO_LARGE, "%zu models; at most %u a worker", n_sources,
                       LIMIT_MODELS_PER_WORKER);
    c.models = calloc(n_sources + 1, sizeof *c.models);
    if (c.models == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the model list");
    for (size_t i = 0; i < n_sources && e == ERR_OK; i++) {
        if (catalogue_find(&c, sources[i].name) != NULL)
            e = err_set(eb, ERR_INVALID, "model %s is named twice", sources[i].name);
        else
            e = model_open(&c.models[c.count++], &sources[i], engine, digests, eb);
    }
    if (e != ERR_OK) {
        catalogue_close(&c);
        return e;
    }
    *ret_catalogue = c;
    return ERR_OK;
}

void catalogue_close(struct catalogue *c)
{
    for (size_t i = 0; i < c->count; i++) {
        struct catalogue_model *m = &c->models[i];
        free(m->name);
        free(m->path);
        free(m->architecture);
        free(m->quantization);
        free(m->chat_template);
        free(m->shape);
        free(m->gang_settings);
    }
    free(c->models);
    *c = (struct catalogue){0};
}

struct catalogue_model *catalogue_find(struct catalogue *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->models[i].name, name) == 0)
            return &c->models[i];
    }
    return NULL;
}
