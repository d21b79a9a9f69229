#include "common/program.h"

#include "common/crypto.h"
#include "common/version.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HELP_COLUMNS 96u

#define OPTION(field) offsetof(struct program_options, field)

static const struct flag common_flags[] = {
    {.name = "config",
     .letter = 'c',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = OPTION(config),
     .help = "Configuration; without it, the defaults (see --print-config)."},
    {.name = "log-level",
     .type = FLAG_CHOICE,
     .argument = "LEVEL",
     .offset = OPTION(log_level),
     .choices = log_level_names,
     .help = "error, warn, info or debug. Goes before the configuration."},
    {.name = "check-config",
     .type = FLAG_SWITCH,
     .offset = OPTION(check_config),
     .help = "Reads the configuration, says what is wrong with it, and ends."},
    {.name = "print-config",
     .type = FLAG_SWITCH,
     .offset = OPTION(print_config),
     .help = "Prints a configuration with every key explained, and ends."},
    {.name = "print-key",
     .type = FLAG_SWITCH,
     .offset = OPTION(print_key),
     .help = "Prints its public key, which is made where it is missing, and ends."},
    {.name = "help", .letter = 'h', .type = FLAG_SWITCH, .offset = OPTION(help), .help = "This."},
    {.name = "version",
     .letter = 'V',
     .type = FLAG_SWITCH,
     .offset = OPTION(version),
     .help = "Prints the version and git revision, and ends."},
    {0}};

static void help_print(const struct program *p)
{
    const struct flag_set sets[] = {{.flags = p->flags}, {.flags = common_flags}, {0}};
    struct buf text;
    buf_init(&text);
    buf_printf(&text, "%s [FLAGS]\n\n%s\n\nFlags:\n", p->name, p->summary);
    flags_describe(sets, HELP_COLUMNS, &text);
    buf_printf(&text, "\n%s\n", p->statuses);
    fputs(buf_str(&text), stdout);
    buf_fini(&text);
}

static void example_print(const struct program *p)
{
    struct buf text;
    buf_init(&text);
    p->print_example(&text);
    fputs(buf_str(&text), stdout);
    buf_fini(&text);
}

static void signals_block(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

void program_hold_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        /* open takes the lowest number, which is this one. The wrong way round, so that using it is
         * the error that it was. */
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(PROGRAM_STATUS_FAILED);
    }
}

int program_begin(const struct program *p, int argc, char **argv, void *values,
                  struct program_options *ret_options)
{
    const struct flag_set own[] = {{.flags = p->flags}, {0}};
    const struct flag_set common[] = {{.flags = common_flags}, {0}};
    const struct flag_target targets[] = {{own, values}, {common, ret_options}};
    struct errbuf eb = {{0}};
    int n_operands;

    *ret_options = (struct program_options){0};
    program_hold_standard_files();
    signals_block();
    if (flags_parse(argv + 1, argc > 0 ? argc - 1 : 0, targets, 2, false, &n_operands, &eb) !=
        ERR_OK)
        return program_fail(p, PROGRAM_STATUS_USAGE, "%s; see %s --help", eb.text, p->name);
    if (n_operands > 0)
        return program_fail(p, PROGRAM_STATUS_USAGE,
                            "\"%.64s\" is not understood: there are only flags; see %s --help",
                            argv[1], p->name);
    if (ret_options->help)
        help_print(p);
    else if (ret_options->version)
        printf("%s %s (%s)\n", p->name, cloister_version, cloister_revision);
    else if (ret_options->print_config)
        example_print(p);
    else {
        program_log(p, ret_options, LOG_LEVEL_INFO);
        return PROGRAM_GO_ON;
    }
    return program_finish_output(p);
}

void program_log(const struct program *p, const struct program_options *options,
                 enum log_level configured)
{
    for (int i = 0; options->log_level != NULL && log_level_names[i] != NULL; i++) {
        if (strcmp(options->log_level, log_level_names[i]) == 0)
            configured = (enum log_level)i;
    }
    log_open(p->log_name, configured);
}

int program_fail(const struct program *p, int status, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s: %s\n", p->name, text);
    return status;
}

int program_config_is_good(const struct program *p, const char *fmt, ...)
{
    va_list ap;
    fputs("the configuration is good; ", stdout);
    va_start(ap, fmt);
    (void)vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    return program_finish_output(p);
}

int program_finish_output(const struct program *p)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return program_fail(p, PROGRAM_STATUS_FAILED, "standard output: %s", strerror(errno));
    return PROGRAM_STATUS_OK;
}

int program_print_key(const struct program *p, const struct crypto_key *key)
{
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    char text[2 * ED25519_PUBLIC_BYTES + 1];
    crypto_key_public(key, public_key);
    hex_encode(public_key, sizeof public_key, text);
    puts(text);
    return program_finish_output(p);
}

enum err program_absolute_path(const char **path, char buf[PATH_MAX], struct errbuf *eb)
{
    if (*path == NULL || (*path)[0] == '/')
        return ERR_OK;
    if ((*path)[0] == '\0')
        return err_set(eb, ERR_INVALID, "the path is empty");
    if (getcwd(buf, PATH_MAX) == NULL)
        return err_set_errno(eb, errno, "the folder it was started in");
    size_t used = strlen(buf), more = strlen(*path);
    if (used + 1 + more >= PATH_MAX)
        return err_set(eb, ERR_TOO_LARGE, "the path is longer than %d bytes", PATH_MAX - 1);
    buf[used] = '/';
    memcpy(buf + used + 1, *path, more + 1);
    *path = buf;
    return ERR_OK;
}
