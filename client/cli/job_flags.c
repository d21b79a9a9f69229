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
     .help = "The model. Without it: the one of client.cfg. submit then takes the only one in the "
             "cluster; a line of a batch has to name it."},
    {.name = "seed",
     .letter = 's',
     .type = FLAG_UINT,
     .argument = "N",
     .offset = JOB(seed),
     .given = JOB(has_seed),
     .help = "The same job with the same seed gives the same answer on any worker. Without it, one "
             "is drawn where the temperature is above 0; -v and --json show it."},
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
    *flags = (struct job_flags){
        .sampling = sampling_flags_default(), .job_class = job_class, .priority = 5};
}

static int job_flags_tokens(struct job_flags *flags, struct cloister_job *job)
{
    for (size_t i = 0; i < flags->sampling.biases.count; i++) {
        struct cloister_logit_bias *b = &flags->bias_values[i];
        const char *text = flags->sampling.biases.items[i];
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
    for (size_t i = 0; i < flags->sampling.stop_tokens.count; i++) {
        uint64_t id;
        if (!units_uint_parse(flags->sampling.stop_tokens.items[i], &id) || id > INT32_MAX)
            return cli_fail(CLI_EXIT_USAGE, "--stop-token %s: not a token id",
                            flags->sampling.stop_tokens.items[i]);
        flags->stop_token_values[i] = (int32_t)id;
    }
    job->logit_bias = flags->bias_values;
    job->n_logit_bias = flags->sampling.biases.count;
    job->stop_tokens = flags->stop_token_values;
    job->n_stop_tokens = flags->sampling.stop_tokens.count;
    return CLI_EXIT_OK;
}

int job_flags_apply(struct job_flags *flags, const struct cli_settings *settings,
                    struct cloister_job *job)
{
    *job = (struct cloister_job)CLOISTER_JOB_INIT;
    if (flags->sampling.temperature > 0 && !flags->has_seed) {
        /* 53 bits, so that the number survives programs that read JSON into doubles. */
        crypto_random(&flags->seed, sizeof flags->seed);
        flags->seed >>= 11;
        flags->has_seed = true;
    }
    cloister_class_parse(flags->job_class, &job->job_class);
    job->max_tokens = (uint32_t)flags->sampling.max_tokens;
    job->priority = (uint32_t)flags->priority;
    job->deadline_ms = flags->deadline_ms;
    job->project = flags->project ? flags->project : settings->project;
    job->cost_center = flags->cost_center ? flags->cost_center : settings->cost_center;
    job->sampling =
        (struct cloister_sampling){.temperature = (float)flags->sampling.temperature,
                                   .top_k = (uint32_t)flags->sampling.top_k,
                                   .top_p = (float)flags->sampling.top_p,
                                   .min_p = (float)flags->sampling.min_p,
                                   .repetition_penalty = (float)flags->sampling.repetition_penalty,
                                   .presence_penalty = (float)flags->sampling.presence_penalty,
                                   .frequency_penalty = (float)flags->sampling.frequency_penalty,
                                   .seed = flags->seed};
    job->typical_p = (float)flags->sampling.typical_p;
    job->logprobs = flags->sampling.has_logprobs;
    job->top_logprobs = (uint32_t)flags->sampling.top_logprobs;
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
