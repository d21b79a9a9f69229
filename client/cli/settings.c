/* Where the coordinator is and who we are: client.cfg, then CLOISTER_URL, then flags. */
#include "client/cli/cli.h"

#include "common/config.h"
#include "common/config_tls.h"
#include "common/crypto.h"
#include "common/folder.h"
#include "common/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTINGS_SYSTEM_FILE "/etc/cloister/client.cfg"
#define WAIT_MS_MAX          (24 * 3600 * 1000)

#define SETTING(field) offsetof(struct cli_settings, field)

static const struct config_key settings_keys[] = {
    {.name = "url",
     .type = CONFIG_STRING,
     .offset = SETTING(url),
     .fallback = "tcp://127.0.0.1:7420",
     .check = config_check_url,
     .help = "The coordinator: tcp://HOST:PORT, or tls+tcp://HOST:PORT with the group tls below. "
             "The environment variable CLOISTER_URL and --url go before it."},
    {.name = "node",
     .type = CONFIG_STRING,
     .offset = SETTING(node),
     .check = config_check_name,
     .example = "workstation-7",
     .help = "What this client is called in the coordinator's log. Without it: the host's name."},
    {.name = "tenant",
     .type = CONFIG_STRING,
     .offset = SETTING(tenant),
     .fallback = "default",
     .check = config_check_name,
     .help = "Whose quota and bill jobs go to. The coordinator knows which keys may use it."},
    {.name = "identity",
     .type = CONFIG_STRING,
     .offset = SETTING(identity),
     .check = config_check_absolute_path,
     .example = "/home/me/.config/cloister/client.key",
     .help = "Our Ed25519 key (PEM, readable by its owner alone); made at first use. Without it: "
             "client.key in $XDG_CONFIG_HOME/cloister or ~/.config/cloister."},
    {.name = "coordinator_key",
     .type = CONFIG_STRING,
     .offset = SETTING(coordinator_key),
     .check = config_check_key_hex,
     .example = "0000000000000000000000000000000000000000000000000000000000000000",
     .help = "The coordinator's public key, as `cloister status` shows it. With it, no other "
             "coordinator is talked to."},
    {.name = "model",
     .type = CONFIG_STRING,
     .offset = SETTING(model),
     .check = config_check_name,
     .example = "smollm2",
     .help = "The model of jobs that name none. Without it, and with one model in the cluster, "
             "`cloister submit` takes that one."},
    {.name = "project",
     .type = CONFIG_STRING,
     .offset = SETTING(project),
     .check = config_check_name,
     .example = "translation",
     .help = "Project that jobs are recorded under, unless they name one."},
    {.name = "cost_center",
     .type = CONFIG_STRING,
     .offset = SETTING(cost_center),
     .check = config_check_name,
     .example = "4711",
     .help = "Cost center that jobs are recorded under, unless they name one."},
    {.name = "wait",
     .type = CONFIG_DURATION,
     .offset = SETTING(wait_ms),
     .fallback = "10s",
     .min = 0,
     .max = WAIT_MS_MAX,
     .help = "How long to keep trying while nobody answers, or while the coordinator is busy. "
             "--wait goes before it."},
    {.name = "stream_wait",
     .type = CONFIG_DURATION,
     .offset = SETTING(stream_wait_ms),
     .fallback = "5m",
     .min = 0,
     .max = WAIT_MS_MAX,
     .help = "The same while an accepted job is watched: it goes on, so more patience pays. --wait "
             "sets both."},
    {.name = "tls",
     .type = CONFIG_GROUP,
     .offset = SETTING(tls),
     .keys = config_tls_keys,
     .help = "For tls+tcp://, which is mutual: both sides show a certificate."},
    {0}};

void cli_settings_example(FILE *out)
{
    struct buf text;
    buf_init(&text);
    config_describe(settings_keys,
                    "Configuration of cloister(1), read from --config FILE, "
                    "$XDG_CONFIG_HOME/cloister/client.cfg, ~/.config/cloister/client.cfg or "
                    "/etc/cloister/client.cfg, the first that is there. All keys are optional.",
                    &text);
    fputs(buf_str(&text), out);
    buf_fini(&text);
}

/* $XDG_CONFIG_HOME/cloister/NAME or ~/.config/cloister/NAME; NULL where neither is known. */
static char *settings_user_path(const char *name)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    struct buf path;
    buf_init(&path);
    if (base && base[0] == '/')
        buf_printf(&path, "%s/cloister/%s", base, name);
    else if (home && home[0] == '/')
        buf_printf(&path, "%s/.config/cloister/%s", home, name);
    char *copy = path.size > 0 && !path.failed ? strdup(buf_str(&path)) : NULL;
    buf_fini(&path);
    return copy;
}

char *cli_identity_path(void)
{
    char *path = settings_user_path("client.key");
    struct errbuf eb = {0};
    if (!path)
        cli_fail(CLI_EXIT_USAGE, "neither HOME nor XDG_CONFIG_HOME says where our key is kept; "
                                 "name a file with --identity");
    else if (folder_make_above(path, &eb) != ERR_OK)
        cli_fail(CLI_EXIT_FAILED, "our key %s: %s; --identity FILE keeps it elsewhere", path,
                 eb.text);
    else
        return path;
    free(path);
    return NULL;
}

/* The file there is, in the documented order; "" where there is none. */
static enum err settings_read(struct cli *cli, struct errbuf *eb)
{
    const char *named = cli->globals.config;
    char *user = named ? NULL : settings_user_path("client.cfg");
    const char *path = named                                     ? named
                       : user && access(user, F_OK) == 0         ? user
                       : access(SETTINGS_SYSTEM_FILE, F_OK) == 0 ? SETTINGS_SYSTEM_FILE
                                                                 : NULL;
    enum err err = path ? config_load_file(&cli->config, settings_keys, &cli->settings,
                                           sizeof cli->settings, path, eb)
                        : config_load_memory(&cli->config, settings_keys, &cli->settings,
                                             sizeof cli->settings, "", 0, "defaults", eb);
    free(user);
    return err;
}

int cli_settings_load(struct cli *cli)
{
    struct errbuf eb = {0};
    struct cli_settings *s = &cli->settings;
    if (settings_read(cli, &eb) != ERR_OK)
        return cli_fail(CLI_EXIT_USAGE, "%s", eb.text);
    const char *from_environment = getenv("CLOISTER_URL");
    const char *source = "url";
    if (from_environment && from_environment[0]) {
        s->url = from_environment;
        source = "CLOISTER_URL";
    }
    if (cli->globals.url) {
        s->url = cli->globals.url;
        source = "--url";
    }
    if (config_check_url(&s->url, &eb) != ERR_OK)
        return cli_fail(CLI_EXIT_USAGE, "%s: %s", source, eb.text);
    bool tls = strncmp(s->url, "tls+tcp://", 10) == 0;
    if (tls && !s->tls.ca_file)
        return cli_fail(CLI_EXIT_USAGE,
                        "%s is %s, which needs the group tls (ca_file, cert_file, key_file) in "
                        "client.cfg",
                        source, s->url);
    if (!tls) /* kept in the file for when the address is a tls+tcp one */
        memset(&s->tls, 0, sizeof s->tls);
    if (cli->globals.tenant) {
        s->tenant = cli->globals.tenant;
        if (config_check_name(&s->tenant, &eb) != ERR_OK)
            return cli_fail(CLI_EXIT_USAGE, "--tenant: %s", eb.text);
    }
    if (cli->globals.identity && !cli->globals.identity[0])
        return cli_fail(CLI_EXIT_USAGE, "--identity: the path is empty");
    if (cli->globals.identity)
        s->identity = cli->globals.identity;
    if (cli->globals.has_wait)
        s->wait_ms = s->stream_wait_ms = cli->globals.wait_ms;
    return CLI_EXIT_OK;
}

static void settings_notice(void *arg, enum cloister_notice notice, const char *text)
{
    struct cli *cli = arg;
    struct buf line;
    buf_init(&line);
    utf8_append_safe(&line, text, strlen(text), false);
    switch (notice) {
    case CLOISTER_NOTICE_WAITING:
        fprintf(stderr, "cloister: %s; still trying, Ctrl-C ends it\n", buf_str(&line));
        break;
    case CLOISTER_NOTICE_RECONNECTED:
        fprintf(stderr, "cloister: the coordinator at %s answers; going on\n", buf_str(&line));
        break;
    case CLOISTER_NOTICE_BUSY:
        if (cli->globals.verbose || cli->stderr_is_terminal)
            fprintf(stderr, "cloister: the coordinator is busy: %s; waiting\n", buf_str(&line));
        break;
    }
    buf_fini(&line);
}

int cli_connect(struct cli *cli)
{
    if (cli->cluster)
        return CLI_EXIT_OK;
    const struct cli_settings *s = &cli->settings;
    const char *identity = s->identity;
    if (!identity) {
        identity = cli->identity_path = cli_identity_path();
        if (!identity)
            return CLI_EXIT_USAGE;
    }
    uint8_t pinned[ED25519_PUBLIC_BYTES];
    struct cloister_options options = CLOISTER_OPTIONS_INIT;
    options.url = s->url;
    options.ca_file = s->tls.ca_file;
    options.cert_file = s->tls.cert_file;
    options.key_file = s->tls.key_file;
    options.node = s->node;
    options.tenant = s->tenant;
    options.identity_file = identity;
    if (s->coordinator_key && hex_decode(s->coordinator_key, pinned, sizeof pinned))
        options.coordinator_key = pinned;
    options.wait_ms = s->wait_ms;
    options.stream_wait_ms = s->stream_wait_ms;
    options.on_notice = settings_notice;
    options.notice_arg = cli;
    struct cloister_problem problem;
    enum cloister_error err = cloister_connect(&cli->cluster, &options, &problem);
    /* The only thing that connecting looks for is the folder of our key. */
    if (err == CLOISTER_ERROR_NOT_FOUND)
        return cli_fail(CLI_EXIT_USAGE, "%s", problem.text);
    if (err != CLOISTER_OK)
        return cli_fail_problem(&problem);
    return CLI_EXIT_OK;
}
