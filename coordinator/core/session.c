/*
 * session.c - who is talking: Hello in two steps, what a key may do, the outbox of commands that a
 * worker pulls.
 *
 * A session lives in memory only. After a restart every number is unknown, the other side says
 * Hello again, and both know that what was under way has to be looked at.
 */
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#define SESSIONS_OPEN_MAX           4096u /* said Hello once, not yet twice */
#define SESSIONS_PER_CONNECTION_MAX 64u
#define SESSIONS_PER_KEY_MAX        4096u  /* of clients */
#define SESSIONS_CLIENTS_MAX        65536u /* workers are bounded by their names, beside these */
#define HELLO_WAIT_MS               30000u
#define QUIET_MS                    (2 * LIMIT_POLL_MS) /* a client that is there asks more often */
#define SWEEP_EVERY_MS              1000u
#define KEY_LOOKED_MAX              16u /* sessions of a key looked at for one that is not in use */

static int session_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_session *x = tree_entry(a, const struct core_session, node);
    const struct core_session *y = tree_entry(b, const struct core_session, node);
    return x->id < y->id ? -1 : x->id > y->id;
}

static int opened_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_session *x = tree_entry(a, const struct core_session, opened);
    const struct core_session *y = tree_entry(b, const struct core_session, opened);
    return x->timer.order < y->timer.order ? -1 : x->timer.order > y->timer.order;
}

static int connection_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_session *x = tree_entry(a, const struct core_session, by_connection);
    const struct core_session *y = tree_entry(b, const struct core_session, by_connection);
    if (x->connection != y->connection)
        return x->connection < y->connection ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int key_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_session *x = tree_entry(a, const struct core_session, by_key);
    const struct core_session *y = tree_entry(b, const struct core_session, by_key);
    int order = memcmp(x->public_key, y->public_key, sizeof x->public_key);
    return order != 0 ? order : x->order < y->order ? -1 : x->order > y->order;
}

void sessions_init(struct core *c)
{
    tree_init(&c->sessions, session_compare);
    tree_init(&c->sessions_open, opened_compare);
    tree_init(&c->sessions_by_connection, connection_compare);
    tree_init(&c->sessions_by_key, key_compare);
}

struct core_session *session_find(const struct core *c, uint64_t id)
{
    struct core_session probe = {.id = id};
    return tree_entry(tree_find(&c->sessions, &probe.node), struct core_session, node);
}

/* A session's number is all that says who is asking, so it is worth nothing on another connection:
 * who reads it on its way cannot use it beside its owner. Nor can he end it by trying. */
struct core_session *session_of(const struct core *c, const struct core_event *event)
{
    struct core_session *s = session_find(c, event->request->session);
    return s != NULL && s->connection == event->connection ? s : NULL;
}

bool core_session_established(const struct core *c, uint64_t session, uint64_t connection)
{
    const struct core_session *s = session_find(c, session);
    return s != NULL && s->established && s->connection == connection;
}

bool core_session_worker_key(const struct core *c, uint64_t session, uint8_t ret_public_key[32])
{
    const struct core_session *s = session_find(c, session);
    if (s == NULL || !s->established || s->role != WIRE_ROLE_WORKER)
        return false;
    memcpy(ret_public_key, s->public_key, sizeof s->public_key);
    return true;
}

bool core_session_challenge(const struct core *c, uint64_t session,
                            uint8_t ret_challenge[CORE_CHALLENGE_BYTES])
{
    const struct core_session *s = session_find(c, session);
    if (s == NULL)
        return false;
    memcpy(ret_challenge, s->challenge, sizeof s->challenge);
    return true;
}

void session_heard(struct core *c, struct core_session *s)
{
    s->heard_ms = c->now_ms;
    if (s->worker != NULL)
        worker_heard(c, s->worker);
}

bool session_may_see(const struct core_session *s, const struct core_job *j)
{
    return s->is_operator || s->tenant == j->owner->tenant;
}

static void command_drop(struct core *c, struct core_command *cmd)
{
    if (cmd->model != NULL)
        name_drop(c, cmd->model);
    free(cmd);
}

static void command_free(struct core *c, struct core_session *s)
{
    struct core_command *cmd = s->outbox;
    s->outbox = cmd->next;
    if (s->outbox == NULL)
        s->outbox_end = &s->outbox;
    command_drop(c, cmd);
}

static void session_free(struct core *c, struct core_session *s)
{
    while (s->outbox != NULL)
        command_free(c, s);
    free((char *)(uintptr_t)s->node_name);
    free(s);
}

void session_end(struct core *c, struct core_session *s, struct core_effects *fx)
{
    if (s->pull_parked) {
        struct core_effect *e =
            reply_add(fx, s->pull_tag, s->id, &s->pull_request_id, WIRE_REPLY_ERROR);
        e->reply.reply.error = (struct wire_error){
            .code = ERR_STALE, .text = "this session is over: say Hello again", .retryable = true};
        s->pull_parked = false;
        c->n_parked--;
    }
    if (!s->established)
        tree_remove(&c->sessions_open, &s->opened);
    if (tree_holds(&s->by_key))
        tree_remove(&c->sessions_by_key, &s->by_key);
    tree_remove(&c->sessions_by_connection, &s->by_connection);
    if (s->worker != NULL && s->worker->session == s)
        s->worker->session = NULL;
    for (struct core_session **at = &c->deliver_sessions; *at != NULL; at = &(*at)->next_deliver) {
        if (*at == s) {
            *at = s->next_deliver;
            break;
        }
    }
    timer_clear(c, &s->timer);
    timer_clear(c, &s->pull_timer);
    tree_remove(&c->sessions, &s->node);
    session_free(c, s);
}

static void session_reply(const struct core *c, const struct core_event *event,
                          const struct core_session *s, struct core_effects *fx)
{
    struct core_effect *e = reply_to(fx, event);
    const struct wire_hello *hello = &event->request->hello;
    e->reply.fill = CORE_FILL_HELLO;
    /* A client's session is not stored. */
    e->reply.promises_nothing = hello->role != WIRE_ROLE_WORKER;
    e->reply.hello = *hello;
    memcpy(e->reply.nonce, hello->nonce, sizeof e->reply.nonce);
    e->reply.reply.session = s->id;
    struct wire_hello_reply *r = &e->reply.reply.hello;
    *r = (struct wire_hello_reply){.established = s->established,
                                   .coordinator = c->config->node,
                                   .build = c->config->build,
                                   .features = WIRE_FEATURES,
                                   .heartbeat_ms = c->config->heartbeat_ms,
                                   .lease_ms = c->config->lease_ms};
    memcpy(r->challenge, s->challenge, sizeof r->challenge);
    memcpy(r->public_key, c->config->public_key, sizeof r->public_key);
}

static const char *text_copy(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(core_alloc(size), text, size);
}

/* A command line leaves a session behind each time. When there is no room, those that have been
 * quiet go before session_idle_ms; a client that comes back says Hello again. */
static void sessions_sweep(struct core *c, struct core_effects *fx)
{
    if (c->swept_ms != 0 && c->now_ms - c->swept_ms < SWEEP_EVERY_MS)
        return; /* whoever knocks while it is full does not have all of them looked at each time */
    c->swept_ms = c->now_ms;
    for (struct tree_node *n = tree_first(&c->sessions_by_key), *next; n != NULL; n = next) {
        struct core_session *s = tree_entry(n, struct core_session, by_key);
        next = tree_above(&c->sessions_by_key, n);
        if (c->now_ms - s->heard_ms >= QUIET_MS)
            session_end(c, s, fx);
    }
}

static enum err clients_room(struct core *c, struct core_effects *fx, struct errbuf *eb)
{
    if (tree_count(&c->sessions_by_key) >= SESSIONS_CLIENTS_MAX)
        sessions_sweep(c, fx);
    if (tree_count(&c->sessions_by_key) < SESSIONS_CLIENTS_MAX)
        return ERR_OK;
    return err_set(eb, ERR_BUSY, "%u sessions are open, no more are taken", SESSIONS_CLIENTS_MAX);
}

/* A connection has a session or two. Who says Hello on it again and again ends his own: first what
 * is half open, which is what a flood is made of. False where all of them are established. */
static bool connection_room(struct core *c, uint64_t connection, struct core_effects *fx)
{
    const struct core_session first = {.connection = connection},
                              last = {.connection = connection, .id = UINT64_MAX};
    struct core_session *oldest = NULL;
    uint32_t n = tree_rank(&c->sessions_by_connection, &last.by_connection) -
                 tree_rank(&c->sessions_by_connection, &first.by_connection);
    if (n < SESSIONS_PER_CONNECTION_MAX)
        return true;
    struct tree_node *at = tree_at_least(&c->sessions_by_connection, &first.by_connection);
    for (; n > 0 && at != NULL; n--, at = tree_above(&c->sessions_by_connection, at)) {
        struct core_session *s = tree_entry(at, struct core_session, by_connection);
        if (!s->established && (oldest == NULL || s->timer.order < oldest->timer.order))
            oldest = s;
    }
    if (oldest == NULL)
        return false;
    session_end(c, oldest, fx);
    return true;
}

/* One key does not take all the room there is. The session that gives way is one of its own, which
 * has not been heard from for long: those that were heard since they were last looked at stay, as
 * far as that takes few steps. Its client says Hello again, should there still be one. */
static void key_room(struct core *c, const struct core_session *s, struct core_effects *fx)
{
    struct core_session first = {.order = 0}, last = {.order = UINT64_MAX};
    memcpy(first.public_key, s->public_key, sizeof first.public_key);
    memcpy(last.public_key, s->public_key, sizeof last.public_key);
    if (tree_rank(&c->sessions_by_key, &last.by_key) -
            tree_rank(&c->sessions_by_key, &first.by_key) <
        SESSIONS_PER_KEY_MAX)
        return;
    struct core_session *oldest = NULL;
    for (unsigned looked = 0; looked < KEY_LOOKED_MAX; looked++) {
        oldest = tree_entry(tree_at_least(&c->sessions_by_key, &first.by_key), struct core_session,
                            by_key);
        if (oldest->heard_ms <= oldest->order_ms)
            break;
        tree_remove(&c->sessions_by_key, &oldest->by_key);
        oldest->order = ++c->session_order;
        oldest->order_ms = oldest->heard_ms;
        tree_insert(&c->sessions_by_key, &oldest->by_key);
    }
    session_end(c, oldest, fx);
}

static void hello_first(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    const struct wire_hello *hello = &event->request->hello;
    struct errbuf eb = {{0}};
    if (hello->role == WIRE_ROLE_CLIENT && clients_room(c, fx, &eb) != ERR_OK) {
        reply_error(fx, event, ERR_BUSY, HELLO_WAIT_MS, "%s", eb.text);
        return;
    }
    if (!connection_room(c, event->connection, fx)) {
        reply_error(fx, event, ERR_BUSY, HELLO_WAIT_MS,
                    "%u sessions are open on this connection, no more are taken",
                    SESSIONS_PER_CONNECTION_MAX);
        return;
    }
    /* Who means it says the second Hello before thousands of others have said their first. */
    if (tree_count(&c->sessions_open) >= SESSIONS_OPEN_MAX)
        session_end(c, tree_entry(tree_first(&c->sessions_open), struct core_session, opened), fx);
    struct core_session *s = core_alloc(sizeof *s);
    s->id = event->random[0];
    while (s->id == 0 || session_find(c, s->id) != NULL)
        s->id++;
    s->connection = event->connection;
    s->role = hello->role;
    s->node_name = text_copy(hello->node); /* of a stranger: not for the core's life */
    s->outbox_end = &s->outbox;
    memcpy(s->public_key, hello->public_key, sizeof s->public_key);
    memcpy(s->challenge, &event->random[1], sizeof s->challenge);
    tree_insert(&c->sessions, &s->node);
    timer_set(c, &s->timer, CORE_TIMER_SESSION, c->now_ms + HELLO_WAIT_MS);
    tree_insert(&c->sessions_open, &s->opened);
    tree_insert(&c->sessions_by_connection, &s->by_connection);
    session_reply(c, event, s, fx);
}

static const struct core_key_config *key_find(const struct core_key_config *keys, size_t n,
                                              const uint8_t public_key[32])
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(keys[i].public_key, public_key, 32) == 0)
            return &keys[i];
    }
    return NULL;
}

static enum err worker_allowed(struct core *c, const struct wire_hello *hello,
                               const struct core_session *s, struct core_effects *fx,
                               struct errbuf *eb)
{
    if (!c->config->open_workers) {
        const struct core_key_config *k =
            key_find(c->config->workers, c->config->n_workers, hello->public_key);
        if (k == NULL)
            return err_set(eb, ERR_REFUSED, "worker %s: its key is not on the list of workers",
                           hello->node);
        if (k->name[0] != '\0' && strcmp(k->name, hello->node) != 0)
            return err_set(eb, ERR_REFUSED, "this key belongs to worker %s, not to %s", k->name,
                           hello->node);
    }
    const struct core_worker *w = worker_find(c, hello->node);
    if (w != NULL && w->session != NULL && w->session != s && w->state != WIRE_WORKER_STATE_GONE &&
        memcmp(w->public_key, hello->public_key, sizeof w->public_key) != 0)
        return err_set(eb, ERR_REFUSED, "a worker named %s is connected with another key",
                       hello->node);
    if (c->frozen)
        return err_set(eb, c->frozen_code, "%s", c->frozen_text);
    if (c->stopping)
        return err_set(eb, ERR_UNAVAILABLE, "the coordinator is shutting down");
    if (w == NULL && !workers_make_room(c))
        return err_set(eb, ERR_TOO_LARGE, "%u workers are here, no more are taken", LIMIT_WORKERS);
    size_t n_models = models_make_room(c, &hello->worker, fx);
    if (n_models > LIMIT_MODELS)
        return err_set(eb, ERR_TOO_LARGE, "%zu models would be known, no more than %u are taken",
                       n_models, LIMIT_MODELS);
    return ERR_OK;
}

static enum err client_allowed(struct core *c, const struct wire_hello *hello,
                               struct core_session *s, struct core_effects *fx, struct errbuf *eb)
{
    const char *tenant = hello->tenant[0] != '\0' ? hello->tenant : "default";
    bool is_operator = true;
    if (!c->config->open_clients) {
        const struct core_key_config *k =
            key_find(c->config->clients, c->config->n_clients, hello->public_key);
        if (k == NULL)
            return err_set(eb, ERR_REFUSED, "client %s: its key is not on the list of clients",
                           hello->node);
        if (k->name[0] != '\0' && strcmp(k->name, hello->node) != 0)
            return err_set(eb, ERR_REFUSED, "this key belongs to client %s, not to %s", k->name,
                           hello->node);
        if (hello->tenant[0] != '\0' && strcmp(k->tenant, hello->tenant) != 0)
            return err_set(eb, ERR_REFUSED, "client %s belongs to tenant %s, not to %s",
                           hello->node, k->tenant, hello->tenant);
        tenant = k->tenant;
        is_operator = k->is_operator;
    }
    if (tenant_find(c, tenant) == NULL && tree_count(&c->tenants) >= LIMIT_TENANTS)
        return err_set(eb, ERR_TOO_LARGE, "%u tenants are known, no more are taken", LIMIT_TENANTS);
    enum err err = s->established ? ERR_OK : clients_room(c, fx, eb);
    if (err != ERR_OK)
        return err;
    s->tenant = tenant_get(c, tenant);
    s->is_operator = is_operator;
    return ERR_OK;
}

/* Also for a session that is established already: its reply may have been lost. */
static void hello_second(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    const struct wire_hello *hello = &event->request->hello;
    struct core_session *s = session_of(c, event);
    struct errbuf eb = {{0}};

    if (s == NULL) {
        reply_error(fx, event, ERR_STALE, 0, "no such session: say Hello without a signature");
        return;
    }
    if (s->role != hello->role || strcmp(s->node_name, hello->node) != 0 ||
        memcmp(s->public_key, hello->public_key, sizeof s->public_key) != 0 ||
        !event->hello_verified) {
        reply_error(fx, event, ERR_REFUSED, 0,
                    "%s: the signature is not over our challenge by the key that was shown",
                    hello->node);
        if (!s->established)
            session_end(c, s, fx);
        return;
    }
    enum err err = s->role == WIRE_ROLE_WORKER ? worker_allowed(c, hello, s, fx, &eb)
                                               : client_allowed(c, hello, s, fx, &eb);
    if (err != ERR_OK) {
        reply_error(fx, event, err, err == ERR_BUSY ? HELLO_WAIT_MS : 0, "%s", eb.text);
        session_end(c, s, fx);
        return;
    }
    memcpy(s->key_fingerprint, event->key_fingerprint, sizeof s->key_fingerprint);
    s->heard_ms = c->now_ms;
    if (!s->established) {
        s->established = true;
        tree_remove(&c->sessions_open, &s->opened);
        if (s->role == WIRE_ROLE_CLIENT) {
            key_room(c, s, fx);
            s->order = ++c->session_order;
            s->order_ms = s->heard_ms;
            tree_insert(&c->sessions_by_key, &s->by_key);
        }
    }
    if (s->role == WIRE_ROLE_WORKER) {
        timer_clear(c, &s->timer);
        worker_hello(c, event, s, fx);
    } else {
        timer_set(c, &s->timer, CORE_TIMER_SESSION, c->now_ms + c->config->session_idle_ms);
    }
    session_reply(c, event, s, fx);
}

void session_hello(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    if (event->request->hello.signature.size == 0)
        hello_first(c, event, fx);
    else
        hello_second(c, event, fx);
}

void session_timer_fire(struct core *c, struct core_session *s, struct core_effects *fx)
{
    uint64_t over_ms = s->heard_ms + c->config->session_idle_ms;
    if (s->established && c->now_ms < over_ms)
        timer_set(c, &s->timer, CORE_TIMER_SESSION, over_ms);
    else
        session_end(c, s, fx);
}

void session_goodbye(struct core *c, const struct core_event *event, struct core_session *s,
                     struct core_effects *fx)
{
    struct core_worker *w = s->worker;
    (void)reply_to(fx, event);
    session_end(c, s, fx);
    if (w == NULL)
        return;
    if (c->frozen) /* its leases cannot be moved now; they are when it stays away */
        w->awaited = true;
    else
        worker_lost(c, w, false, fx);
}

/* ---- the outbox ---- */

void session_deliver(struct core *c, struct core_session *s)
{
    if (s->deliver)
        return;
    s->deliver = true;
    s->next_deliver = c->deliver_sessions;
    c->deliver_sessions = s;
}

struct core_command *session_command(struct core *c, struct core_session *s,
                                     enum wire_command_kind kind)
{
    struct core_command *cmd = core_alloc(sizeof *cmd);
    cmd->seq = ++s->next_command;
    cmd->kind = kind;
    *s->outbox_end = cmd;
    s->outbox_end = &cmd->next;
    session_deliver(c, s);
    return cmd;
}

/* The job that a RUN is about, where that lease still holds. */
static struct core_job *run_job(const struct core *c, const struct core_session *s,
                                const struct core_command *cmd)
{
    struct core_job *j = job_find(c, &cmd->job_id);
    if (j == NULL || j->lease == NULL || j->lease->epoch != cmd->epoch ||
        j->lease->worker != s->worker)
        return NULL;
    return j;
}

static void commands_acked(struct core *c, struct core_session *s, uint64_t acked)
{
    while (s->outbox != NULL && s->outbox->seq <= acked) {
        const struct core_command *cmd = s->outbox;
        struct core_job *j = cmd->kind == WIRE_COMMAND_RUN ? run_job(c, s, cmd) : NULL;
        if (j != NULL && j->state == WIRE_JOB_STATE_LEASED && !c->frozen)
            job_move(c, j, WIRE_JOB_STATE_RUNNING);
        command_free(c, s);
    }
}

/* What it is about has ended meanwhile. */
static void command_skip(struct core *c, struct core_session *s, struct core_command **at)
{
    struct core_command *cmd = *at;
    *at = cmd->next;
    if (*at == NULL)
        s->outbox_end = at;
    command_drop(c, cmd);
}

static void gang_command_fill(const struct core_command *cmd, const struct core_gang *g,
                              const struct core_worker *w, struct core_effects *fx,
                              struct wire_command *out)
{
    if (cmd->kind == WIRE_COMMAND_MEET) {
        out->meet = (struct wire_command_meet){.model = cmd->model,
                                               .gang = g->number,
                                               .addresses = gang_addresses(g, fx),
                                               .n_addresses = g->n_ranks};
        return;
    }
    out->load.model = cmd->model;
    if (g != NULL)
        gang_place(g, w, fx, &out->load.place);
}

/* The oldest commands, those dropped whose lease or gang has ended meanwhile. Said again until
 * acked. */
void session_pull_answer(struct core *c, struct core_session *s, struct core_effects *fx)
{
    struct core_effect *e =
        reply_add(fx, s->pull_tag, s->id, &s->pull_request_id, WIRE_REQUEST_PULL);
    struct wire_command *commands =
        effect_alloc(fx, LIMIT_COMMANDS_PER_PULL, sizeof(struct wire_command));
    struct core_run_fill *runs =
        effect_alloc(fx, LIMIT_COMMANDS_PER_PULL, sizeof(struct core_run_fill));
    size_t n = 0;

    struct core_command **at = &s->outbox;
    while (*at != NULL && n < LIMIT_COMMANDS_PER_PULL) {
        struct core_command *cmd = *at;
        struct wire_command *out = &commands[n];
        *out = (struct wire_command){.seq = cmd->seq, .kind = cmd->kind};
        switch (cmd->kind) {
        case WIRE_COMMAND_LOAD:
        case WIRE_COMMAND_MEET: {
            const struct core_gang *g = cmd->epoch != 0 ? gang_find(c, cmd->epoch) : NULL;
            if (cmd->epoch != 0 && g == NULL) {
                command_skip(c, s, at);
                continue;
            }
            gang_command_fill(cmd, g, s->worker, fx, out);
            break;
        }
        case WIRE_COMMAND_UNLOAD:
            out->unload.model = cmd->model;
            break;
        case WIRE_COMMAND_CANCEL:
            out->cancel.job_id = cmd->job_id;
            out->cancel.epoch = cmd->epoch;
            break;
        case WIRE_COMMAND_RUN: {
            const struct core_job *j = run_job(c, s, cmd);
            if (j == NULL) {
                command_skip(c, s, at);
                continue;
            }
            out->run.job_id = cmd->job_id;
            out->run.epoch = cmd->epoch;
            out->run.attempt = j->attempts;
            out->run.resume_text_bytes = (uint32_t)j->text_bytes;
            out->run.tenant = j->owner->tenant->name;
            j->lease->handed = true;
            runs[n] = (struct core_run_fill){.max_tokens = j->max_tokens, .tokens = j->tokens};
            e->reply.fill = CORE_FILL_COMMANDS;
            break;
        }
        }
        n++;
        at = &cmd->next;
    }
    e->reply.reply.pull = (struct wire_pull_reply){.commands = commands, .n_commands = n};
    e->reply.runs = runs;
    s->pull_parked = false;
    c->n_parked--;
    timer_clear(c, &s->pull_timer);
}

void session_pull(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx)
{
    const struct wire_pull *pull = &event->request->pull;
    if (pull->acked_command > s->next_command) {
        reply_error(fx, event, ERR_INVALID, 0,
                    "pull.acked_command is %llu, but only %llu commands were given",
                    (unsigned long long)pull->acked_command, (unsigned long long)s->next_command);
        return;
    }
    /* One poll a session: an older one was given up by the worker. */
    if (s->pull_parked) {
        (void)reply_add(fx, s->pull_tag, s->id, &s->pull_request_id, WIRE_REQUEST_PULL);
        c->n_parked--;
    }
    commands_acked(c, s, pull->acked_command);
    s->pull_parked = true;
    s->pull_tag = event->tag;
    s->pull_request_id = event->request->request_id;
    c->n_parked++;
    timer_set(c, &s->pull_timer, CORE_TIMER_PULL, c->now_ms + pull->wait_ms);
    session_deliver(c, s);
}

void sessions_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->sessions.root) != NULL) {
        tree_remove(&c->sessions, n);
        session_free(c, tree_entry(n, struct core_session, node));
    }
}
