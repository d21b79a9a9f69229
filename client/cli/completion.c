/* Completion scripts, written from the same tables as help, so that they cannot fall behind. The
 * ones in client/completion are this program's output (a test compares them). */
#include "client/cli/cli.h"

#include "common/buf.h"

#include <string.h>

/* ---- shared ---- */

typedef void completion_flag_fn(struct buf *out, const struct flag *flag, const char *where);

static void completion_each_flag(struct buf *out, const struct flag_set *sets, const char *where,
                                 completion_flag_fn *fn)
{
    for (const struct flag_set *set = sets; set && set->flags; set++)
        for (const struct flag *f = set->flags; f->type != FLAG_NONE; f++)
            fn(out, f, where);
}

/* The first sentence of a help text, with what the shell would take for its own escaped. */
static void completion_text(struct buf *out, const char *text, const char *escaped)
{
    for (; *text && !(text[0] == '.' && (text[1] == ' ' || !text[1])); text++) {
        if (*text == '\'') {
            buf_append_str(out, "'\\''");
            continue;
        }
        if (strchr(escaped, *text))
            buf_append_byte(out, '\\');
        buf_append_byte(out, (uint8_t)*text);
    }
}

static bool completion_is_file(const struct flag *f)
{
    return f->argument && (strcmp(f->argument, "FILE") == 0 || strstr(f->argument, "|FILE"));
}

/* The first word of "ledger export"; ret_second is the other, or NULL. */
static size_t completion_words(const struct cli_command *c, const char **ret_second)
{
    const char *blank = strchr(c->name, ' ');
    *ret_second = blank ? blank + 1 : NULL;
    return blank ? (size_t)(blank - c->name) : strlen(c->name);
}

static bool completion_first_of_pair(const struct cli_command *c)
{
    const char *second;
    size_t size = completion_words(c, &second);
    return !second || c == cli_commands || strncmp(c[-1].name, c->name, size) != 0 ||
           (c[-1].name[size] != ' ' && c[-1].name[size] != '\0');
}

/* ---- bash ---- */

static void bash_flag(struct buf *out, const struct flag *f, const char *where)
{
    (void)where;
    buf_printf(out, " --%s", f->name);
    if (f->letter)
        buf_printf(out, " -%c", f->letter);
}

/* Where the word before is a flag with a value: what that may be. */
static void bash_value(struct buf *out, const struct flag *f, const char *where)
{
    if (f->type == FLAG_SWITCH)
        return;
    buf_printf(out, "    %s--%s", where, f->name);
    if (f->letter)
        buf_printf(out, " | %s-%c", where, f->letter);
    buf_append_str(out, ")\n        ");
    if (f->type == FLAG_CHOICE) {
        buf_append_str(out, "COMPREPLY=($(compgen -W \"");
        for (size_t i = 0; f->choices[i]; i++)
            buf_printf(out, "%s%s", i ? " " : "", f->choices[i]);
        buf_append_str(out, "\" -- \"$cur\"))");
    } else if (strcmp(f->name, "model") == 0) {
        buf_append_str(out, "COMPREPLY=($(compgen -W \"$(_cloister_models)\" -- \"$cur\"))");
    } else if (completion_is_file(f)) {
        buf_append_str(out, "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))");
    } else {
        buf_append_str(out, ":");
    }
    buf_append_str(out, "\n        return ;;\n");
}

static void bash_takes_value(struct buf *out, const struct flag *f, const char *where)
{
    (void)where;
    if (f->type == FLAG_SWITCH)
        return;
    buf_printf(out, " | --%s", f->name);
    if (f->letter)
        buf_printf(out, " | -%c", f->letter);
}

static void bash_operand(struct buf *out, const struct cli_command *c)
{
    const char *operands = c->operands;
    if (strncmp(operands, "JOB", 3) == 0)
        buf_append_str(out, "COMPREPLY=($(compgen -W \"$(_cloister_jobs)\" -- \"$cur\"))");
    else if (strcmp(operands, "MODEL") == 0)
        buf_append_str(out, "COMPREPLY=($(compgen -W \"$(_cloister_models)\" -- \"$cur\"))");
    else if (strcmp(operands, "bash|zsh|fish") == 0)
        buf_append_str(out, "COMPREPLY=($(compgen -W \"bash zsh fish\" -- \"$cur\"))");
    else if (strcmp(operands, "[COMMAND]") == 0)
        buf_append_str(out, "COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))");
    else if (strstr(operands, "FILE") || strstr(operands, ".jsonl"))
        buf_append_str(out, "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))");
    else
        buf_append_str(out, ":");
}

static void bash_commands(struct buf *out)
{
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        const char *second;
        size_t size = completion_words(c, &second);
        if (completion_first_of_pair(c))
            buf_printf(out, "%s%.*s", c == cli_commands ? "" : " ", (int)size, c->name);
    }
}

static void bash_write(struct buf *out)
{
    buf_append_str(out,
                   "# bash completion for cloister(1); printed by `cloister completion bash`\n\n"
                   "_cloister_jobs() {\n"
                   "    cloister jobs --json --limit 200 --wait 1s 2>/dev/null |\n"
                   "        sed -n 's/^ *\"id\": *\"[0-9a-f]*\\([0-9a-f]\\{8\\}\\)\".*/\\1/p'\n"
                   "}\n\n"
                   "_cloister_models() {\n"
                   "    cloister models --json --wait 1s 2>/dev/null |\n"
                   "        sed -n 's/^ *\"name\": *\"\\([^\"]*\\)\".*/\\1/p'\n"
                   "}\n\n"
                   "_cloister() {\n"
                   "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
                   "    local commands=\"");
    bash_commands(out);
    buf_append_str(out, "\"\n    local global=\"");
    completion_each_flag(out, cli_global_sets, NULL, bash_flag);
    buf_append_str(out, "\"\n    local command= i skip=\n"
                        "    COMPREPLY=()\n"
                        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                        "        if [ -n \"$skip\" ]; then\n"
                        "            skip=\n"
                        "            continue\n"
                        "        fi\n"
                        "        case ${COMP_WORDS[i]} in\n"
                        "        \"\"");
    completion_each_flag(out, cli_global_sets, NULL, bash_takes_value);
    for (const struct cli_command *c = cli_commands; c->name; c++)
        completion_each_flag(out, c->sets, NULL, bash_takes_value);
    buf_append_str(out, ") skip=1 ;;\n"
                        "        -*) ;;\n"
                        "        *)\n"
                        "            command+=${command:+ }${COMP_WORDS[i]}\n"
                        "            [[ $command == ledger || $command == models ]] || break ;;\n"
                        "        esac\n"
                        "    done\n\n"
                        "    case $prev in\n");
    completion_each_flag(out, cli_global_sets, "", bash_value);
    buf_append_str(out, "    esac\n    case $command:$prev in\n");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        char where[64];
        snprintf(where, sizeof where, "\"%s:\"", c->name);
        completion_each_flag(out, c->sets, where, bash_value);
    }
    buf_append_str(out, "    esac\n\n    local flags=\n    case $command in\n");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        buf_printf(out, "    \"%s\") flags=\"", c->name);
        completion_each_flag(out, c->sets, NULL, bash_flag);
        buf_append_str(out, "\" ;;\n");
    }
    buf_append_str(out, "    esac\n"
                        "    if [[ $cur == -* ]]; then\n"
                        "        COMPREPLY=($(compgen -W \"$flags $global\" -- \"$cur\"))\n"
                        "        return\n"
                        "    fi\n"
                        "    case $command in\n"
                        "    \"\") COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\")) ;;\n"
                        "    ledger) COMPREPLY=($(compgen -W \"export verify\" -- \"$cur\")) ;;\n"
                        "    models) COMPREPLY=($(compgen -W plan -- \"$cur\")) ;;\n");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (!c->operands[0])
            continue;
        buf_printf(out, "    \"%s\") ", c->name);
        bash_operand(out, c);
        buf_append_str(out, " ;;\n");
    }
    buf_append_str(out, "    esac\n}\n\ncomplete -F _cloister cloister\n");
}

/* ---- zsh ---- */

static void zsh_flag(struct buf *out, const struct flag *f, const char *where)
{
    buf_printf(out, " \\\n%s'", where);
    if (f->type != FLAG_TEXTS && f->letter)
        buf_printf(out, "(-%c --%s)'{-%c,--%s}'", f->letter, f->name, f->letter, f->name);
    else
        buf_printf(out, "%s--%s", f->type == FLAG_TEXTS ? "*" : "", f->name);
    buf_append_byte(out, '[');
    completion_text(out, f->help, "[]:\\");
    buf_append_byte(out, ']');
    if (f->type != FLAG_SWITCH) {
        buf_append_byte(out, ':');
        completion_text(out, f->argument, "[]:\\.");
        buf_append_byte(out, ':');
        if (f->type == FLAG_CHOICE) {
            buf_append_byte(out, '(');
            for (size_t i = 0; f->choices[i]; i++)
                buf_printf(out, "%s%s", i ? " " : "", f->choices[i]);
            buf_append_byte(out, ')');
        } else if (strcmp(f->name, "model") == 0) {
            buf_append_str(out, "_cloister_models");
        } else if (completion_is_file(f)) {
            buf_append_str(out, "_files");
        }
    }
    buf_append_byte(out, '\'');
}

static void zsh_operand(struct buf *out, const struct cli_command *c)
{
    if (strncmp(c->operands, "JOB", 3) == 0)
        buf_append_str(out, " \\\n            '*:job:_cloister_jobs'");
    else if (strcmp(c->operands, "MODEL") == 0)
        buf_append_str(out, " \\\n            '1:model:_cloister_models'");
    else if (strcmp(c->name, "models") == 0)
        buf_append_str(out, " \\\n            '1:command:(plan)'");
    else if (strcmp(c->operands, "bash|zsh|fish") == 0)
        buf_append_str(out, " \\\n            '1:shell:(bash zsh fish)'");
    else if (strcmp(c->operands, "[COMMAND]") == 0)
        buf_append_str(out, " \\\n            '1:command:_cloister_commands'");
    else if (strstr(c->operands, "FILE") || strstr(c->operands, ".jsonl"))
        buf_append_str(out, " \\\n            '1:file:_files'");
}

static void zsh_write(struct buf *out)
{
    buf_append_str(
        out, "#compdef cloister\n"
             "# zsh completion for cloister(1); printed by `cloister completion zsh`\n\n"
             "_cloister_jobs() {\n"
             "    local -a jobs\n"
             "    jobs=(${(f)\"$(cloister jobs --json --limit 200 --wait 1s 2>/dev/null |\n"
             "        sed -n 's/^ *\"id\": *\"[0-9a-f]*\\([0-9a-f]\\{8\\}\\)\".*/\\1/p')\"})\n"
             "    compadd -a jobs\n"
             "}\n\n"
             "_cloister_models() {\n"
             "    local -a models\n"
             "    models=(${(f)\"$(cloister models --json --wait 1s 2>/dev/null |\n"
             "        sed -n 's/^ *\"name\": *\"\\([^\"]*\\)\".*/\\1/p')\"})\n"
             "    compadd -a models\n"
             "}\n\n"
             "_cloister_commands() {\n"
             "    local -a commands\n"
             "    commands=(\n");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        const char *second;
        size_t size = completion_words(c, &second);
        if (!completion_first_of_pair(c))
            continue;
        buf_printf(out, "        '%.*s:", (int)size, c->name);
        completion_text(out, second ? "export or verify the ledger" : c->summary, ":\\");
        buf_append_str(out, "'\n");
    }
    buf_append_str(out, "    )\n"
                        "    _describe command commands\n"
                        "}\n\n"
                        "_cloister() {\n"
                        "    local context state line\n"
                        "    typeset -A opt_args\n"
                        "    local -a global\n"
                        "    global=(");
    struct buf flags;
    buf_init(&flags);
    completion_each_flag(&flags, cli_global_sets, "        ", zsh_flag);
    /* In an array there are no continuation lines. */
    for (size_t i = 0; i < flags.size; i++) {
        if (flags.data[i] == ' ' && flags.data[i + 1] == '\\' && flags.data[i + 2] == '\n')
            i++;
        else
            buf_append_byte(out, flags.data[i]);
    }
    buf_fini(&flags);
    buf_append_str(
        out, "\n    )\n"
             "    _arguments -C $global '1:command:_cloister_commands' '*::argument:->rest'\n"
             "    [[ $state == rest ]] || return\n"
             "    local command=$line[1]\n"
             "    if [[ $command == (ledger|models) && $CURRENT -gt 2 && $words[2] != -* ]]; then\n"
             "        command+=\" $words[2]\"\n"
             "        shift words\n"
             "        (( CURRENT-- ))\n"
             "    fi\n"
             "    case $command in\n"
             "    ledger) _values 'ledger command' export verify ;;\n");
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        buf_printf(out, "    '%s')\n        _arguments $global", c->name);
        completion_each_flag(out, c->sets, "            ", zsh_flag);
        zsh_operand(out, c);
        buf_append_str(out, " ;;\n");
    }
    buf_append_str(out, "    esac\n}\n\n_cloister \"$@\"\n");
}

/* ---- fish ---- */

static void fish_flag(struct buf *out, const struct flag *f, const char *where)
{
    buf_printf(out, "complete -c cloister%s -l %s", where, f->name);
    if (f->letter)
        buf_printf(out, " -s %c", f->letter);
    if (f->type == FLAG_CHOICE) {
        buf_append_str(out, " -x -a '");
        for (size_t i = 0; f->choices[i]; i++)
            buf_printf(out, "%s%s", i ? " " : "", f->choices[i]);
        buf_append_byte(out, '\'');
    } else if (strcmp(f->name, "model") == 0) {
        buf_append_str(out, " -x -a '(__cloister_models)'");
    } else if (completion_is_file(f)) {
        buf_append_str(out, " -r -F");
    } else if (f->type != FLAG_SWITCH) {
        buf_append_str(out, " -x");
    }
    buf_append_str(out, " -d '");
    completion_text(out, f->help, "\\");
    buf_append_str(out, "'\n");
}

static void fish_write(struct buf *out)
{
    buf_append_str(out,
                   "# fish completion for cloister(1); printed by `cloister completion fish`\n\n"
                   "function __cloister_jobs\n"
                   "    cloister jobs --json --limit 200 --wait 1s 2>/dev/null |\n"
                   "        sed -n 's/^ *\"id\": *\"[0-9a-f]*\\([0-9a-f]\\{8\\}\\)\".*/\\1/p'\n"
                   "end\n\n"
                   "function __cloister_models\n"
                   "    cloister models --json --wait 1s 2>/dev/null |\n"
                   "        sed -n 's/^ *\"name\": *\"\\([^\"]*\\)\".*/\\1/p'\n"
                   "end\n\n"
                   "complete -c cloister -f\n");
    completion_each_flag(out, cli_global_sets, "", fish_flag);
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        const char *second;
        char where[160];
        int size = (int)completion_words(c, &second);
        if (completion_first_of_pair(c)) {
            buf_printf(out, "\ncomplete -c cloister -n __fish_use_subcommand -a %.*s -d '", size,
                       c->name);
            completion_text(out, second ? "export or verify the ledger" : c->summary, "\\");
            buf_append_str(out, "'\n");
        }
        if (second) {
            buf_printf(out,
                       "complete -c cloister -n '__fish_seen_subcommand_from %.*s; and not "
                       "__fish_seen_subcommand_from export verify plan' -a %s -d '",
                       size, c->name, second);
            completion_text(out, c->summary, "\\");
            buf_append_str(out, "'\n");
        }
        snprintf(where, sizeof where, " -n '__fish_seen_subcommand_from %.*s%s%s'", size, c->name,
                 second ? "; and __fish_seen_subcommand_from " : "", second ? second : "");
        completion_each_flag(out, c->sets, where, fish_flag);
        if (strncmp(c->operands, "JOB", 3) == 0)
            buf_printf(out, "complete -c cloister%s -a '(__cloister_jobs)'\n", where);
        else if (strcmp(c->operands, "MODEL") == 0)
            buf_printf(out, "complete -c cloister%s -a '(__cloister_models)'\n", where);
        else if (strcmp(c->operands, "bash|zsh|fish") == 0)
            buf_printf(out, "complete -c cloister%s -a 'bash zsh fish'\n", where);
        else if (strstr(c->operands, "FILE") || strstr(c->operands, ".jsonl"))
            buf_printf(out, "complete -c cloister%s -F\n", where);
    }
}

bool completion_write(const char *shell, struct buf *out)
{
    static const struct {
        const char *shell;
        void (*write)(struct buf *out);
    } shells[] = {{"bash", bash_write}, {"zsh", zsh_write}, {"fish", fish_write}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (strcmp(shells[i].shell, shell) == 0) {
            shells[i].write(out);
            return true;
        }
    }
    return false;
}

int command_completion(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)cli;
    (void)values;
    (void)n_operands;
    struct buf text;
    buf_init(&text);
    if (!completion_write(operands[0], &text)) {
        buf_fini(&text);
        return cli_fail(CLI_EXIT_USAGE,
                        "there is no completion for \"%s\"; there is one for bash, "
                        "zsh and fish",
                        operands[0]);
    }
    fputs(buf_str(&text), stdout);
    buf_fini(&text);
    return cli_finish_output();
}
