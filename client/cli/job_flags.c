#include "client/cli/job_flags.h"

#include "common/buf.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/units.h"

#define JOB(field) offsetof(struct job_flags, field)

static const char *const classes[] = {"interactive", "standard", "batch", NULL};

const struct flag job_flags_table[] = {
    {.name = "model",
     .letter = 'm',
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = JOB(model),
     .help = "The model. Without it: the one of client.cfg, or the only one in the cluster."},
    {.name = "max-tokens",
     .letter = 'n',
     .type = FLAG_UINT,
     .argument = "N",
     .offset = JOB(max_tokens),
     .min = 1,
     .max = LIMIT_MAX_TOKENS,
     .help = "The answer ends after N tokens (256)."},
    {.name = "temperature",
     .letter = 't',
     .type = FLAG_FLOAT,
     .argument = "T",
     .offset = JOB(temperature),
     .float_min = 0,
     .float_max = 100,
     .help = "0 (the default) takes the likeliest token each time; 1 draws from the model's own "
             "distribution."},
    {.name = "top-p",
     .type = FLAG_FLOAT,
     .argument = "P",
     .offset = JOB(top_p),
     .float_min = 0,
     .float_max = 1,
     .help = "Draws from the likeliest tokens that together reach P (1: off)."},
    {.name = "top-k",
     .type = FLAG_UINT,
     .argument = "K",
     .offset = JOB(top_k),
     .min = 0,
     .max = UINT32_MAX,
     .help = "Draws from the K likeliest tokens (0: off)."},
    {.name = "min-p",
     .type = FLAG_FLOAT,
     .argument = "P",
     .offset = JOB(min_p),
     .float_min = 0,
     .float_max = 1,
     .help = "Draws from tokens at least P times as likely as the likeliest (0: off)."},
    {.name = "typical-p",
     .type = FLAG_FLOAT,
     .argument = "P",
     .offset = JOB(typical_p),
     .float_min = 0,
     .float_max = 1,
     .help = "Draws from the tokens whose surprise is nearest to the mean, as many as together "
             "reach P (1: off)."},
    {.name = "logit-bias",
     .type = FLAG_TEXTS,
     .argument = "ID:BIAS",
     .offset = JOB(biases),
     .help = "Adds BIAS, -100 to 100, to the logit of the token ID. May be repeated."},
    {.name = "repetition-penalty",
     .type = FLAG_FLOAT,
     .argument = "R",
     .offset = JOB(repetition_penalty),
     .float_min = 0.01,
     .float_max = 100,
     .help = "Divides the logits of tokens that were there before (1: off)."},
    {.name = "presence-penalty",
     .type = FLAG_FLOAT,
     .argument = "X",
     .offset = JOB(presence_penalty),
     .float_min = -2,
     .float_max = 2,
     .help = "Taken from the logits of tokens that were there before: -2 to 2 (0: off)."},
    {.name = "frequency-penalty",
     .type = FLAG_FLOAT,
     .argument = "X",
     .offset = JOB(frequency_penalty),
     .float_min = -2,
     .float_max = 2,
     .help = "The same, once for each time the token was there: -2 to 2 (0: off)."},
    {.name = "seed",
     .letter = 's',
     .type = FLAG_UINT,
     .argument = "N",
     .offset = JOB(seed),
     .given = JOB(has_seed),
     .help = "The same job with the same seed gives the same answer on any worker. Without it, one "
             "is drawn where the temperature is above 0; -v and --json show it."},
    {.name = "stop-token",
     .type = FLAG_TEXTS,
     .argument = "ID",
     .offset = JOB(stop_tokens),
     .max = LIMIT_STOP_TOKENS,
     .help = "The answer ends with this token, which adds no text. May be repeated."},
    {.name = "logprobs",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = JOB(top_logprobs),
     .given = JOB(has_logprobs),
     .min = 0,
     .max = LIMIT_TOP_LOGPROBS,
     .help = "Answers in JSON have the logprob of each token, and of the N likeliest in its place "
             "(0 to 20)."},
    {.name = "class",
     .type = FLAG_CHOICE,
     .argument = "CLASS",
     .offset = JOB(job_class),
     .choices = classes,
     .help = "interactive, standard or batch: who goes first when there is not enough for all."},
    {.name = "priority",
     .type = FLAG_UINT,
     .argument = "0..9",
     .offset = JOB(priority),
     .min = 0,
     .max = 9,
     .help = "Within the class; 9 goes first (5)."},
    {.name = "deadline",
     .type = FLAG_DURATION,
     .argument = "TIME",
     .offset = JOB(deadline_ms),
     .min = 1,
     .max = LIMIT_DEADLINE_MS,
     .help = "The job expires when it is not done after this long, such as 30s or 2h."},
    {.name = "project",
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = JOB(project),
     .help = "Recorded with the job, for the bill."},
    {.name = "cost-center",
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = JOB(cost_center),
     .help = "Recorded with the job, for the bill."},
    {0}};

void job_flags_defaults(struct job_flags *flags, const char *job_class)
{
    *flags = (struct job_flags){.job_class = job_class,
                                .max_tokens = 256,
                                .top_p = 1,
                                .typical_p = 1,
                                .repetition_penalty = 1,
                                .priority = 5};
}

_Static_assert(LIMIT_STOP_TOKENS <= FLAG_TEXTS_MOST, "all stop tokens can be given");

static int job_flags_tokens(struct job_flags *flags, struct cloister_job *job)
{
    for (size_t i = 0; i < flags->biases.count; i++) {
        struct cloister_logit_bias *b = &flags->bias_values[i];
        const char *text = flags->biases.items[i];
        if (!units_bias_parse(text, &b->id, &b->bias) || b->bias < -100 || b->bias > 100)
            return cli_fail(CLI_EXIT_USAGE,
                            "--logit-bias %s: not ID:BIAS with a bias of -100 to 100, such as "
                            "50256:-100",
                            text);
        for (size_t k = 0; k < i; k++)
            if (flags->bias_values[k].id == b->id)
                return cli_fail(CLI_EXIT_USAGE, "--logit-bias %s: token %d has one already", text,
                                b->id);
    }
    for (size_t i = 0; i < flags->stop_tokens.count; i++) {
        uint64_t id;
        if (!units_uint_parse(flags->stop_tokens.items[i], &id) || id > INT32_MAX)
            return cli_fail(CLI_EXIT_USAGE, "--stop-token %s: not a token id",
                            flags->stop_tokens.items[i]);
        flags->stop_token_values[i] = (int32_t)id;
    }
    job->logit_bias = flags->bias_values;
    job->n_logit_bias = flags->biases.count;
    job->stop_tokens = flags->stop_token_values;
    job->n_stop_tokens = flags->stop_tokens.count;
    return CLI_EXIT_OK;
}

int job_flags_apply(struct job_flags *flags, const struct cli_settings *settings,
                    struct cloister_job *job)
{
    *job = (struct cloister_job)CLOISTER_JOB_INIT;
    if (flags->temperature > 0 && !flags->has_seed) {
        /* 53 bits, so that the number survives programs that read JSON into doubles. */
        crypto_random(&flags->seed, sizeof flags->seed);
        flags->seed >>= 11;
        flags->has_seed = true;
    }
    cloister_class_parse(flags->job_class, &job->job_class);
    job->max_tokens = (uint32_t)flags->max_tokens;
    job->priority = (uint32_t)flags->priority;
    job->deadline_ms = flags->deadline_ms;
    job->project = flags->project ? flags->project : settings->project;
    job->cost_center = flags->cost_center ? flags->cost_center : settings->cost_center;
    job->sampling =
        (struct cloister_sampling){.temperature = (float)flags->temperature,
                                   .top_k = (uint32_t)flags->top_k,
                                   .top_p = (float)flags->top_p,
                                   .min_p = (float)flags->min_p,
                                   .repetition_penalty = (float)flags->repetition_penalty,
                                   .presence_penalty = (float)flags->presence_penalty,
                                   .frequency_penalty = (float)flags->frequency_penalty,
                                   .seed = flags->seed};
    job->typical_p = (float)flags->typical_p;
    job->logprobs = flags->has_logprobs;
    job->top_logprobs = (uint32_t)flags->top_logprobs;
    return job_flags_tokens(flags, job);
}

int job_flags_model(struct cli *cli, const struct job_flags *flags,
                    struct cloister_result **ret_result, const char **ret_model)
{
    const char *model = flags->model ? flags->model : cli->settings.model;
    *ret_result = NULL;
    if (model) {
        *ret_model = model;
        return CLI_EXIT_OK;
    }
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_model *models;
    size_t n;
    if (cloister_list_models(cli->cluster, &result, &models, &n, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (n == 1) {
        *ret_result = result;
        *ret_model = models[0].name;
        return CLI_EXIT_OK;
    }
    struct buf names;
    buf_init(&names);
    for (size_t i = 0; i < n; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", models[i].name);
    int code = n == 0 ? cli_fail(CLI_EXIT_NOT_FOUND,
                                 "no worker of this cluster has a model; see `cloister workers`")
                      : cli_fail(CLI_EXIT_USAGE, "which model? give --model with one of: %s",
                                 buf_str(&names));
    buf_fini(&names);
    cloister_result_free(result);
    return code;
}
