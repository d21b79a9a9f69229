#include "worker/engine_tool/model_options.h"

#include "common/check.h"
#include "common/limits.h"

#include <stddef.h>
#include <string.h>

#define MODEL(field) offsetof(struct model_flags, field)

/* The test build's program has an emulated GPU in place of a real one. */
#ifdef CLOISTER_CUDA_EMULATED
#define CUDA_NAME "cuda-emulated"
#else
#define CUDA_NAME "cuda"
#endif
static const char *const backend_names[] = {"cpu", CUDA_NAME, NULL};
static const char *const kv_names[] = {"f16", "q8_0", NULL};

const struct flag model_flags_table[] = {
    {.name = "threads",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = MODEL(threads),
     .min = 1,
     .max = LIMIT_WORKER_THREADS,
     .help = "Threads (the cores of this process). Changes no bit of what is computed."},
    {.name = "backend",
     .type = FLAG_CHOICE,
     .argument = "NAME",
     .offset = MODEL(backend),
     .choices = backend_names,
     .help = "cpu or " CUDA_NAME " (cpu). Changes no bit of what is computed."},
    {.name = "gpu",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = MODEL(gpu),
     .max = UINT32_MAX,
     .help = "The GPU for " CUDA_NAME ", as CUDA counts them (0); of shards the first one's, the "
             "next ones have those behind it."},
    {.name = "isa",
     .type = FLAG_CHOICE,
     .argument = "ISA",
     .offset = MODEL(isa),
     .choices = backend_isa_names,
     .help =
         "auto, scalar, avx2, avx512 or amx (auto: the best there is). Changes no bit of what is "
         "computed."},
    {.name = "kv",
     .type = FLAG_CHOICE,
     .argument = "TYPE",
     .offset = MODEL(kv),
     .choices = kv_names,
     .help = "Type of the KV cache, f16 or q8_0 (f16). Changes what is computed."},
    {.name = "context",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = MODEL(context),
     .min = 2,
     .max = LIMIT_CONTEXT_TOKENS,
     .help = "Most tokens of prompt and answer together."},
    {.name = "json", .type = FLAG_SWITCH, .offset = MODEL(json), .help = "The result as JSON."},
    {0}};

struct model_options model_options_of(const struct model_flags *flags, const char *path)
{
    struct model_options o = {
        .engine.gpu = (uint32_t)flags->gpu,
        .engine.threads = (uint32_t)flags->threads,
        .model = {.path = path, .context_tokens = (uint32_t)flags->context},
        .json = flags->json,
    };

    if (flags->backend != NULL && strcmp(flags->backend, CUDA_NAME) == 0)
        o.engine.backend = ENGINE_BACKEND_CUDA;
    if (flags->isa != NULL)
        CHECK(backend_isa_parse(flags->isa, &o.engine.isa));
    if (flags->kv != NULL)
        o.model.kv_type = strcmp(flags->kv, "q8_0") == 0 ? KV_TYPE_Q8_0 : KV_TYPE_F16;
    return o;
}
