/*
 * model.c - models by name, and each of them on each worker that has its file: what it would take,
 * whether it is loaded, what its last load and its work have taught us.
 */
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

static int model_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct core_model, node)->name,
                  tree_entry(b, const struct core_model, node)->name);
}

static int by_model_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct core_hosting, by_model)->worker->name,
                  tree_entry(b, const struct core_hosting, by_model)->worker->name);
}

void models_init(struct core *c)
{
    tree_init(&c->models, model_compare);
}

struct core_model *model_find(const struct core *c, const char *name)
{
    struct core_model probe = {.name = name};
    return tree_entry(tree_find(&c->models, &probe.node), struct core_model, node);
}

struct core_model *model_get(struct core *c, const char *name)
{
    struct core_model *m = model_find(c, name);
    if (m != NULL)
        return m;
    m = core_alloc(sizeof *m);
    m->name = name_intern(c, name);
    tree_init(&m->hosts, by_model_compare);
    queue_init(m);
    m->learned = (struct record_learned){
        .model = m->name, .architecture = "", .quantization = "", .chat_template = ""};
    tree_insert(&c->models, &m->node);
    return m;
}

static void model_forget(struct core *c, struct core_model *m, struct core_effects *fx)
{
    if (m->known)
        effect_add(fx, CORE_EFFECT_DELETE_LEARNED)->learned = (struct record_learned){
            .model = m->name, .architecture = "", .quantization = "", .chat_template = ""};
    timer_clear(c, &m->timer);
    tree_remove(&c->models, &m->node);
    name_drop(c, m->learned.architecture);
    name_drop(c, m->learned.quantization);
    name_drop(c, m->learned.chat_template);
    name_drop(c, m->name);
    free(m->gang_over);
    free(m);
}

static struct core_model *model_longest_unseen(const struct core *c)
{
    struct core_model *longest = NULL;
    for (struct tree_node *n = tree_first(&c->models); n != NULL; n = tree_above(&c->models, n)) {
        struct core_model *m = tree_entry(n, struct core_model, node);
        bool is_idle = tree_count(&m->hosts) == 0 && m->jobs == 0 && !m->expected && !m->wanted &&
                       !m->place_dirty && !m->learned_dirty;
        if (is_idle && (longest == NULL || m->offered_ms < longest->offered_ms))
            longest = m;
    }
    return longest;
}

size_t models_make_room(struct core *c, const struct wire_worker_hello *hello,
                        struct core_effects *fx)
{
    struct core_model *m;
    size_t n_new = 0;
    for (size_t i = 0; i < hello->n_models; i++) {
        m = model_find(c, hello->models[i].name);
        if (m != NULL)
            m->wanted = true;
        n_new += m == NULL;
    }
    while (tree_count(&c->models) + n_new > LIMIT_MODELS && (m = model_longest_unseen(c)) != NULL)
        model_forget(c, m, fx);
    for (size_t i = 0; i < hello->n_models; i++) {
        m = model_find(c, hello->models[i].name);
        if (m != NULL)
            m->wanted = false;
    }
    return tree_count(&c->models) + n_new;
}

void model_touch(struct core *c, struct core_model *m)
{
    m->look_again |= m->look_reach != 0;
    if (m->place_dirty)
        return;
    m->place_dirty = true;
    m->next_place = c->place_models;
    c->place_models = m;
}

void model_learned_touch(struct core *c, struct core_model *m)
{
    if (m->learned_dirty)
        return;
    m->learned_dirty = true;
    m->next_learned = c->dirty_learned;
    c->dirty_learned = m;
}

struct core_hosting *hosting_find(const struct core_worker *w, const char *model)
{
    struct core_model m = {.name = model};
    struct core_hosting probe = {.model = &m};
    return tree_entry(tree_find(&w->hosting, &probe.by_worker), struct core_hosting, by_worker);
}

/* True while some worker that is connected serves the file that the name stands for. */
static bool file_is_served(const struct core_model *m)
{
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (h->same_file && h->worker->session != NULL)
            return true;
    }
    return false;
}

static bool learned_is(const struct record_learned *l, const struct wire_model_offer *o)
{
    return memcmp(l->weights_digest, o->weights_digest, sizeof l->weights_digest) == 0 &&
           memcmp(l->tokenizer_digest, o->tokenizer_digest, sizeof l->tokenizer_digest) == 0;
}

/* One name stands for one file: a job must not go on with other weights than it began with. The
 * name moves to another file once no worker serves the old one and no job is unfinished. */
static bool name_may_move(const struct core_model *m)
{
    return !m->known || (!file_is_served(m) && m->leased == 0 && tree_count(&m->queue) == 0);
}

static void learn_offer(struct core *c, struct core_model *m, const struct wire_model_offer *o)
{
    struct record_learned *l = &m->learned;
    uint64_t predicted = o->weights_bytes + o->kv_bytes + o->scratch_bytes;
    bool is_new = !m->known || !learned_is(l, o);
    if (is_new) {
        l->measured_bytes = l->load_ms = 0;
        l->prefill_tokens_per_s = l->decode_tokens_per_s = 0;
    } else if (l->predicted_bytes == predicted && l->context_tokens == o->context_tokens &&
               strcmp(l->chat_template, o->chat_template) == 0 &&
               strcmp(l->quantization, o->quantization) == 0 &&
               l->prompt_tokens_per_job == o->prompt_tokens_per_job &&
               l->prompt_tokens_per_message == o->prompt_tokens_per_message &&
               l->prompt_tokens_per_kib == o->prompt_tokens_per_kib) {
        return;
    }
    memcpy(l->weights_digest, o->weights_digest, sizeof l->weights_digest);
    memcpy(l->tokenizer_digest, o->tokenizer_digest, sizeof l->tokenizer_digest);
    name_replace(c, &l->architecture, o->architecture);
    name_replace(c, &l->quantization, o->quantization);
    name_replace(c, &l->chat_template, o->chat_template);
    l->parameters = o->parameters;
    l->file_bytes = o->file_bytes;
    l->context_tokens = o->context_tokens;
    l->weights_bytes = o->weights_bytes;
    l->kv_bytes = o->kv_bytes;
    l->scratch_bytes = o->scratch_bytes;
    l->prompt_tokens_per_job = o->prompt_tokens_per_job;
    l->prompt_tokens_per_message = o->prompt_tokens_per_message;
    l->prompt_tokens_per_kib = o->prompt_tokens_per_kib;
    /* What was measured belongs to what was predicted then. */
    if (l->predicted_bytes != predicted)
        l->measured_bytes = 0;
    l->predicted_bytes = predicted;
    m->known = true;
    model_learned_touch(c, m);
}

/* A vocabulary in which a space is three tokens and any byte may have a special token's prefix
 * behind it: as many as there can be. */
#define UNKNOWN_PER_JOB     4096u
#define UNKNOWN_PER_MESSAGE 64u
#define UNKNOWN_PER_KIB     3584u

static void prompt_rate_raise(struct prompt_rate *r, uint32_t per_job, uint32_t per_message,
                              uint32_t per_kib)
{
    if (per_kib == 0) { /* it does not say */
        per_job = UNKNOWN_PER_JOB;
        per_message = UNKNOWN_PER_MESSAGE;
        per_kib = UNKNOWN_PER_KIB;
    }
    r->per_job = per_job > r->per_job ? per_job : r->per_job;
    r->per_message = per_message > r->per_message ? per_message : r->per_message;
    r->per_kib = per_kib > r->per_kib ? per_kib : r->per_kib;
}

struct prompt_rate model_prompt_rate(const struct core_model *m)
{
    const struct record_learned *l = &m->learned;
    struct prompt_rate r = {0};
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (h->same_file)
            prompt_rate_raise(&r, h->offer.prompt_tokens_per_job,
                              h->offer.prompt_tokens_per_message, h->offer.prompt_tokens_per_kib);
    }
    if (r.per_kib == 0)
        prompt_rate_raise(&r, l->prompt_tokens_per_job, l->prompt_tokens_per_message,
                          l->prompt_tokens_per_kib);
    return r;
}

/* Offers may have stood beside the old file for long: the name moves when that is gone, to what the
 * first of those that are here by name offers. */
void model_choose_file(struct core *c, struct core_model *m)
{
    const struct core_hosting *first = NULL;
    if (!name_may_move(m))
        return;
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_model);
        if (first == NULL && h->worker->session != NULL) {
            first = h;
            learn_offer(c, m, &h->offer);
        }
    }
    for (struct tree_node *n = tree_first(&m->hosts); first != NULL && n != NULL;
         n = tree_above(&m->hosts, n)) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_model);
        h->same_file = learned_is(&m->learned, &h->offer);
    }
}

static struct wire_bytes shape_copy(const struct wire_bytes *from)
{
    if (from->size == 0)
        return (struct wire_bytes){NULL, 0};
    uint8_t *bytes = core_alloc(from->size);
    memcpy(bytes, from->data, from->size);
    return (struct wire_bytes){bytes, from->size};
}

static void offer_drop(struct core *c, const struct wire_model_offer *offer)
{
    free((void *)offer->shape.data);
    name_drop(c, offer->architecture);
    name_drop(c, offer->quantization);
    name_drop(c, offer->chat_template);
    name_drop(c, offer->gang_settings);
}

void hosting_offer(struct core *c, struct core_worker *w, const struct wire_model_offer *offer)
{
    struct core_model *m = model_get(c, offer->name);
    struct core_hosting *h = hosting_find(w, offer->name);
    if (h == NULL) {
        h = core_alloc(sizeof *h);
        h->worker = w;
        h->model = m;
        h->offer.architecture = h->offer.quantization = h->offer.chat_template = "";
        h->offer.gang_settings = "";
        tree_insert(&w->hosting, &h->by_worker);
        tree_insert(&m->hosts, &h->by_model);
    }
    struct wire_model_offer old = h->offer;
    h->offer = *offer;
    h->offer.name = m->name;
    h->offer.architecture = name_intern(c, offer->architecture);
    h->offer.quantization = name_intern(c, offer->quantization);
    h->offer.chat_template = name_intern(c, offer->chat_template);
    h->offer.gang_settings = name_intern(c, offer->gang_settings);
    h->offer.shape = shape_copy(&offer->shape);
    offer_drop(c, &old);
    h->state = WIRE_MODEL_STATE_AVAILABLE;
    h->load_asked = h->unload_asked = false;
    h->failures = 0;
    h->status = (struct wire_model_status){.name = m->name, .state = h->state, .error = ""};
    h->measured = h->learned_from = (struct core_measure){0};
    free(h->error);
    h->error = NULL;
    h->same_file = false;
    if ((m->known && learned_is(&m->learned, &h->offer)) || name_may_move(m)) {
        h->same_file = true;
        learn_offer(c, m, &h->offer);
    }
    model_touch(c, m);
}

void hosting_remove(struct core *c, struct core_hosting *h)
{
    CHECK(h->leases == 0 && h->gang == NULL);
    model_touch(c, h->model);
    h->model->offered_ms = c->now_ms;
    if (h->worker->making_room == h->model)
        h->worker->making_room = NULL; /* it may come back without that file */
    tree_remove(&h->worker->hosting, &h->by_worker);
    tree_remove(&h->model->hosts, &h->by_model);
    offer_drop(c, &h->offer);
    free(h->error);
    free(h);
}

/* ---- what was measured ----
 *
 * A worker's own numbers decide about that worker, where they can be true at all. What is learned
 * for a model, and used for workers that have measured nothing yet, is the middle one of what its
 * workers say: one that is broken, or lies, moves nothing as soon as there are three.
 */

#define MEASURES_MAX      63u    /* of so many workers; more make the middle no better */
#define LOAD_MS_LEAST_MAX 60000u /* and what 10 MB/s take */
#define LOAD_BYTES_PER_MS 10000u
#define TOKENS_PER_S_MAX  10000000u
#define BYTES_EXTRA_MAX   (256ull << 20) /* what a device takes beside the model */

static uint64_t predicted_bytes(const struct wire_model_offer *o)
{
    return o->weights_bytes + o->kv_bytes + o->scratch_bytes;
}

/* The header of the file says how much a model takes; a loaded one takes half to twice of it. */
static bool bytes_are_plausible(const struct core_hosting *h, uint64_t bytes)
{
    uint64_t predicted = predicted_bytes(&h->offer);
    return bytes >= predicted / 2 && bytes / 2 <= predicted + BYTES_EXTRA_MAX;
}

static void hosting_measure(struct core_hosting *h)
{
    const struct wire_model_status *s = &h->status;
    struct core_measure *m = &h->measured;
    uint64_t bytes = s->weights_bytes + s->kv_bytes + s->scratch_bytes;
    if (h->state != WIRE_MODEL_STATE_READY)
        return;
    if (bytes != 0 && bytes_are_plausible(h, bytes))
        m->bytes = bytes;
    if (s->load_ms != 0 &&
        s->load_ms <= LOAD_MS_LEAST_MAX + h->offer.weights_bytes / LOAD_BYTES_PER_MS)
        m->load_ms = s->load_ms;
    if (s->prefill_tokens_per_s != 0 && s->prefill_tokens_per_s <= TOKENS_PER_S_MAX)
        m->prefill_tokens_per_s = s->prefill_tokens_per_s;
    if (s->decode_tokens_per_s != 0 && s->decode_tokens_per_s <= TOKENS_PER_S_MAX)
        m->decode_tokens_per_s = s->decode_tokens_per_s;
}

struct measures {
    uint64_t values[MEASURES_MAX];
    size_t n;
};

static void measures_add(struct measures *m, uint64_t value)
{
    if (value == 0 || m->n == MEASURES_MAX)
        return;
    size_t i = m->n++;
    for (; i > 0 && m->values[i - 1] > value; i--)
        m->values[i] = m->values[i - 1];
    m->values[i] = value;
}

/* Of two in the middle the lower or the higher one. 0: nobody has measured. */
static uint64_t measures_middle(const struct measures *m, bool higher)
{
    return m->n > 0 ? m->values[higher ? m->n / 2 : (m->n - 1) / 2] : 0;
}

/* Measured numbers wander; only a change of an eighth is worth a write. */
static bool has_moved(uint64_t was, uint64_t now)
{
    uint64_t low = was < now ? was : now, high = was < now ? now : was;
    return now != 0 && high - low > high / 8;
}

static bool measure_has_moved(const struct core_measure *was, const struct core_measure *now)
{
    return was->bytes != now->bytes || has_moved(was->load_ms, now->load_ms) ||
           has_moved(was->prefill_tokens_per_s, now->prefill_tokens_per_s) ||
           has_moved(was->decode_tokens_per_s, now->decode_tokens_per_s);
}

static void learn_measures(struct core *c, struct core_model *m)
{
    struct measures bytes = {.n = 0}, load = {.n = 0}, prefill = {.n = 0}, decode = {.n = 0};
    struct record_learned *l = &m->learned;
    bool changed = false;

    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (!h->same_file)
            continue;
        /* Bytes belong to what was predicted for that context. */
        if (predicted_bytes(&h->offer) == l->predicted_bytes)
            measures_add(&bytes, h->measured.bytes);
        measures_add(&load, h->measured.load_ms);
        measures_add(&prefill, h->measured.prefill_tokens_per_s);
        measures_add(&decode, h->measured.decode_tokens_per_s);
    }
    /* In doubt a model is larger and slower than it is said to be. */
    uint64_t now[4] = {measures_middle(&bytes, true), measures_middle(&load, true),
                       measures_middle(&prefill, false), measures_middle(&decode, false)};
    if (now[0] != 0 && now[0] != l->measured_bytes) {
        l->measured_bytes = now[0];
        changed = true;
    }
    if (has_moved(l->load_ms, now[1])) {
        l->load_ms = now[1];
        changed = true;
    }
    if (has_moved(l->prefill_tokens_per_s, now[2])) {
        l->prefill_tokens_per_s = (uint32_t)now[2];
        changed = true;
    }
    if (has_moved(l->decode_tokens_per_s, now[3])) {
        l->decode_tokens_per_s = (uint32_t)now[3];
        changed = true;
    }
    if (changed)
        model_learned_touch(c, m);
}

static void learn_status(struct core *c, struct core_hosting *h)
{
    if (h->status.gang != 0 || h->share_bytes != 0) /* numbers of a share */
        return;
    hosting_measure(h);
    if (!h->same_file || !measure_has_moved(&h->learned_from, &h->measured))
        return;
    h->learned_from = h->measured;
    learn_measures(c, h->model);
}

void hosting_status(struct core *c, struct core_worker *w, const struct wire_model_status *status,
                    struct core_effects *fx)
{
    struct core_hosting *h = hosting_find(w, status->name);
    if (h == NULL) /* a file that was not offered is nothing we could have asked for */
        return;
    enum wire_model_state was = h->state;
    uint32_t failures = status->failures;
    if (status->state == WIRE_MODEL_STATE_FAILED && failures == 0)
        failures = 1;
    /* It says how often: a load may fail between two reports, with FAILED before it and behind. */
    bool failed_again = status->state == WIRE_MODEL_STATE_FAILED && failures != h->failures;
    h->failures = failures;
    h->status = *status;
    h->status.name = h->model->name;
    h->status.error = "";
    free(h->error);
    h->error = NULL;
    if (status->error[0] != '\0') {
        size_t size = strlen(status->error) + 1;
        h->error = core_alloc(size);
        memcpy(h->error, status->error, size);
        h->status.error = h->error;
    }
    h->state = status->state;
    /* A status that was sent before our command was taken changes nothing; one that still says so
     * after a whole lease time means that the worker did not do it. */
    bool late = c->now_ms >= h->asked_ms + c->config->lease_ms;
    bool tried = (h->state == WIRE_MODEL_STATE_LOADING || h->state == WIRE_MODEL_STATE_READY) &&
                 (h->gang == NULL || status->gang == h->gang->number);
    if (h->load_asked && (late || tried || failed_again))
        h->load_asked = false;
    bool has_gone = h->state == WIRE_MODEL_STATE_AVAILABLE || h->state == WIRE_MODEL_STATE_FAILED;
    if (h->unload_asked && (late || has_gone))
        h->unload_asked = false;
    if (h->state != was) {
        if (h->state == WIRE_MODEL_STATE_READY) {
            h->ready_ms = h->used_ms = c->now_ms;
        }
        workers_touch_models(c, w);
    }
    if (failed_again)
        h->failed_ms = c->now_ms;
    gang_status(c, h, fx);
    learn_status(c, h);
    if (h->state == WIRE_MODEL_STATE_AVAILABLE) { /* a gang that is over is no place any more */
        h->status.gang = 0;
        h->status.rank = h->status.ranks = 0;
    }
    model_touch(c, h->model);
}

/* What it takes when loaded: as measured there, or by others of the same size, else as predicted.
 */
uint64_t hosting_need_bytes(const struct core_hosting *h)
{
    const struct record_learned *l = &h->model->learned;
    if (h->share_bytes != 0)
        return h->share_bytes;
    if (h->measured.bytes != 0)
        return h->measured.bytes;
    if (h->same_file && l->measured_bytes != 0 && l->predicted_bytes == predicted_bytes(&h->offer))
        return l->measured_bytes;
    return predicted_bytes(&h->offer);
}

uint64_t hosting_load_ms(const struct core_hosting *h)
{
    if (h->measured.load_ms != 0)
        return h->measured.load_ms;
    return h->same_file ? h->model->learned.load_ms : 0;
}

uint32_t hosting_tokens_per_s(const struct core_hosting *h)
{
    if (h->gang != NULL && h->status.decode_tokens_per_s <= TOKENS_PER_S_MAX)
        return h->status.decode_tokens_per_s;
    if (h->measured.decode_tokens_per_s != 0)
        return h->measured.decode_tokens_per_s;
    return h->same_file ? h->model->learned.decode_tokens_per_s : 0;
}

bool hosting_holds_memory(const struct core_hosting *h)
{
    return h->state == WIRE_MODEL_STATE_READY || h->state == WIRE_MODEL_STATE_LOADING ||
           h->load_asked || h->unload_asked;
}

bool hosting_is_ready(const struct core_hosting *h)
{
    return h->state == WIRE_MODEL_STATE_READY &&
           h->status.gang == (h->gang != NULL ? h->gang->number : 0);
}

bool hosting_is_loading(const struct core_hosting *h)
{
    return h->load_asked || (h->state == WIRE_MODEL_STATE_LOADING &&
                             h->status.gang == (h->gang != NULL ? h->gang->number : 0));
}

/* The last that it is told of the model, and has not taken yet, is this already. */
static bool unload_is_under_way(const struct core_hosting *h)
{
    bool is_under_way = false;
    for (const struct core_command *cmd = h->worker->session->outbox; cmd != NULL;
         cmd = cmd->next) {
        if (cmd->model != NULL && strcmp(cmd->model, h->model->name) == 0)
            is_under_way = cmd->kind == WIRE_COMMAND_UNLOAD;
    }
    return is_under_way;
}

void hosting_unload(struct core *c, struct core_hosting *h)
{
    if (!unload_is_under_way(h)) {
        struct core_command *cmd = session_command(c, h->worker->session, WIRE_COMMAND_UNLOAD);
        cmd->model = name_intern(c, h->model->name);
    }
    h->load_asked = false;
    h->unload_asked = true;
    h->asked_ms = c->now_ms;
}

void models_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->models.root) != NULL) {
        struct core_model *m = tree_entry(n, struct core_model, node);
        tree_remove(&c->models, n);
        free(m->gang_over);
        free(m);
    }
}
